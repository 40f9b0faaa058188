# IGC-L32M26 of depth 20 on SVHN: interleaved group convolutions, ICCV 2017, Table 7, and the recipe of Section 5.2: 40 epochs, the
# learning rate divided by 10 after 20, 30 and 35, no augmentation. The paper's 6 000 held-out images are the validation data;
# `tools/test.py` uses the test images. Mean and standard deviation are from the authors' code.
_base_ = '../cifar/igc_l32m26_d20_cifar10.py'
data_preprocessor = dict(mean=[111.609, 113.161, 120.565], std=[50.498, 51.259, 50.244])
svhn = dict(_delete_=True, type='mmtied.SVHN', data_root='data/svhn', pipeline=[dict(type='PackInputs')])
train_dataloader = dict(dataset=dict(split='train', **svhn))
val_dataloader = dict(dataset=dict(split='val', **svhn))
test_dataloader = dict(dataset=dict(split='test', **svhn))
param_scheduler = dict(milestones=[20, 30, 35])
train_cfg = dict(max_epochs=40)
