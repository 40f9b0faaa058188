# ResNet-50 on ImageNet-1k: the untied baseline of Table 1, and the common recipe: 100 epochs, SGD with momentum 0.9,
# learning rate 0.1 divided by 10 every 30 epochs, batch size 256 (8 GPUs of 32; for other numbers --auto-scale-lr).
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
