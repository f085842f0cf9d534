"""ShapesWorld: procedural captioned images on which every claim of the project is measured."""
