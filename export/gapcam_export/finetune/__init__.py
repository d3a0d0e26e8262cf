"""Fine-tunes a network on folders of images and says what it gained: the command `gapcam finetune`.

The function is `gapcam_export.finetune.steps.finetune`; it is not imported here, so that `--help` need not wait for it.
"""
