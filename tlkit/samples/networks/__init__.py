"""Architectures of the sample encoders, and the SavedModel that each is written to.

Arrays of weights come in; a SavedModel with TF Hub's reusable interface goes out.

* `bert`: BERT as the TensorFlow Model Garden exports it.
* `resnet`: ResNet-50 as Caffe has it.
* `vgg`: VGG-16.
* `reusable_sample`: makes variables of arrays, and writes the SavedModel.

Each architecture has `forward(variables, inputs, training)` and `INPUTS`, its specs.
"""
