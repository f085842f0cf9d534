"""The Kedro pipelines, one package each: ``pipeline.py`` (the graph), ``nodes.py`` (thin), ``params.py``."""
