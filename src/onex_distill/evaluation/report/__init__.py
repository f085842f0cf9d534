"""What people read: the verdict, labelled grids, charts and one page."""
