"""dxseg: lesion segmentation with many image-level labels and few masks.

Every command is a function of the same name: `dxseg.train` is `dxseg train`, `dxseg.import_folder`
is `dxseg import folder`. The public names are listed once, in `__init__.pyi`; each is imported when
it is first used, so that `import dxseg` loads no other library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
