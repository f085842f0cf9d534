"""Images and pipelines that were not made here: read, sampled and scored as our own are."""
