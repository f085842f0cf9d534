"""The method: distribution matching, adversarial refinement, cache co-training, and the memory they need."""
