"""stub"""


class NginxNative:
    def __init__(self, **k):
        pass
