"""IntTower and the models it is compared with, as a plain PyTorch library."""
