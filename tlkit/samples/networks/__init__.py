"""Architectures of the sample encoders; writes each of them as a SavedModel.

Arrays of weights come in; a SavedModel with TF Hub's reusable interface goes out.

* `bert`: BERT as the TensorFlow Model Garden exports it.
* `resnet`: ResNet-50 in the variant of Caffe.
* `vgg`: VGG-16.
* `reusable_sample`: creates variables from arrays, and writes the SavedModel.

Each architecture has `forward(variables, inputs, training)`, and the specs `INPUTS`.
"""
