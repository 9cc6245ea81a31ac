use burn::tensor::{Int, Tensor, activation};

/// The cross-entropy of each review: `-log_softmax(logits)[label]`.
///
/// # Shapes
/// - logits: `[batch_size, num_labels]`
/// - labels: `[batch_size]`
/// - output: `[batch_size]`
pub fn losses(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let batch_size = logits.dims()[0];
    let log_probabilities = activation::log_softmax(logits, 1);
    log_probabilities.gather(1, labels.reshape([batch_size, 1])).neg().reshape([batch_size])
}
