# ResNet-18 on ImageNet-1k for 95 epochs, learning rate divided by 10 after 30, 60 and 90, Nesterov momentum: the baseline of
# Table 6 in interleaved group convolutions, ICCV 2017, and the recipe of its networks. The augmentation is that of the authors'
# script: the shorter side is 256 to 480 pixels, the aspect ratio changes by up to a quarter, colors by 36 (hue) and 50.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
train_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmtied.RandomScaleAspect', scale=(256, 480), aspect=0.25),
        dict(type='RandomCrop', crop_size=224),
        dict(type='mmtied.HSLJitter', hue=36, saturation=50, lightness=50),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='PackInputs'),
    ]))
optim_wrapper = dict(optimizer=dict(nesterov=True))
train_cfg = dict(max_epochs=95)
