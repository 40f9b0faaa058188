"""Other networks that share or group filters, one package per paper.

`shared_bases` (Kang & Kim, 2021), `interleaved` (Zhang et al., ICCV 2017) and `groupable` (Zhang et al., ICCV 2019) each contain
layers, blocks, backbones and training terms. Importing a package needs only torch; its ``backbones`` and ``training`` need
mmengine and mmcv, and `mmtied` imports them if these are installed.
"""
