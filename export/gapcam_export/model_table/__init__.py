"""The page docs/models.md: what the export makes of torchvision's classifiers and of many of timm's.

python -m gapcam_export.model_table --output docs/models.md
"""
