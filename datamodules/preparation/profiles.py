class ProfileSource:
    pass
