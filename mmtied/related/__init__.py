"""Other networks that share or group filters, one package for each paper.

`shared_bases` (Kang & Kim, 2021), `interleaved` (Zhang et al., ICCV 2017) and `groupable` (Zhang et al., ICCV 2019) each hold
their layers, blocks, backbones and training terms. Importing one of them needs only torch; its ``backbones`` and ``training``
need mmengine and mmcv, and `mmtied` imports them where these are installed.
"""
