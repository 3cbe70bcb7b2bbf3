class GGUFFile:
    pass
