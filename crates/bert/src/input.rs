use burn::tensor::{Device, Int, Tensor};
use nsmc_ops::{Sequences, int_tensor};

/// Padded widths are multiples of it, so that few kernels are compiled and tuned.
const WIDTHS: usize = 16;

/// The tokens of a batch as rows: its sequences laid end to end.
///
/// Tokens, positions and segments must be below the model's `vocab_size`, `max_position_embeddings` and
/// `type_vocab_size`: on `flex` its forward pass panics otherwise, and a GPU does not check.
///
/// # Shapes
/// - all three tensors: `[rows]`, where `rows` is [`Sequences::rows`]
#[derive(Clone, Debug)]
pub struct BertInput {
    /// Token of each row.
    pub input_ids: Tensor<1, Int>,
    /// Position of each row within its sequence.
    pub position_ids: Tensor<1, Int>,
    /// Segment of each row: 0, or 1 for the second sequence of a pair.
    pub token_type_ids: Tensor<1, Int>,
    /// Where each sequence lies.
    pub sequences: Sequences,
}

impl BertInput {
    /// Single sequences, unpadded, all of the first segment.
    ///
    /// # Panics
    ///
    /// If a sequence is empty, or there is none.
    pub fn from_ids(sequences: &[Vec<u32>], device: &Device) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let types = vec![0; lengths.iter().sum()];
        Self::unpadded(&sequences.concat(), &types, lengths, device)
    }

    /// Sequences laid end to end without padding; `input_ids` and `token_type_ids` have one entry
    /// per token.
    ///
    /// # Panics
    ///
    /// If the lengths do not add up to the tokens, a sequence is empty, or there is none.
    pub fn unpadded(
        input_ids: &[u32],
        token_type_ids: &[u32],
        lengths: Vec<usize>,
        device: &Device,
    ) -> Self {
        let position_ids: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        Self::new(
            int_tensor(input_ids.iter().copied(), device),
            int_tensor(position_ids.iter().copied(), device),
            int_tensor(token_type_ids.iter().copied(), device),
            Sequences::unpadded(lengths, device),
        )
    }

    /// Sequences padded to `width` tokens each, as transformers lays a batch out: row `i · width + j`
    /// is position `j` of sequence `i`, and `input_ids` and `token_type_ids` have one entry per row.
    /// The model gives the same results as for [`Self::unpadded`]. It looks the positions of padding up,
    /// too, so that `width` may be at most its `max_position_embeddings`.
    ///
    /// # Panics
    ///
    /// If the tokens are not `width` per sequence, or a length is 0 or beyond `width`.
    pub fn padded(
        input_ids: &[u32],
        token_type_ids: &[u32],
        lengths: Vec<usize>,
        width: usize,
        device: &Device,
    ) -> Self {
        let position_ids: Vec<u32> = lengths.iter().flat_map(|_| 0..width as u32).collect();
        Self::new(
            int_tensor(input_ids.iter().copied(), device),
            int_tensor(position_ids.iter().copied(), device),
            int_tensor(token_type_ids.iter().copied(), device),
            Sequences::padded(lengths, width, device),
        )
    }

    /// This batch in the layout that its device computes fastest: for a GPU
    /// ([`Sequences::prefer_padding`]) a batch without padding is padded, anything else stays as it is.
    ///
    /// Padding moves rows. The second value then says where to: its entry `i` is the new row of what was
    /// row `i`, `[rows before]`. It is none where nothing moved.
    pub fn for_device(self) -> (Self, Option<Tensor<1, Int>>) {
        let unpadded = self.sequences.rows() == self.sequences.lengths().iter().sum::<usize>();
        if !unpadded || !Sequences::prefer_padding(&self.input_ids.device()) {
            return (self, None);
        }
        let (padded, positions) = self.pad(WIDTHS);
        (padded, Some(positions))
    }

    /// Pads sequences that lie end to end to the longest's width, rounded up to a multiple of
    /// `widths`. Also gives the new row of what was row `i`, for each `i`. Results are the same.
    pub(crate) fn pad(self, widths: usize) -> (Self, Tensor<1, Int>) {
        let device = self.input_ids.device();
        let lengths = self.sequences.lengths().to_vec();
        let width = self.sequences.width().next_multiple_of(widths);
        let mut rows = Vec::with_capacity(lengths.len() * width);
        let mut positions = Vec::with_capacity(self.sequences.rows());
        for (sequence, &length) in lengths.iter().enumerate() {
            let first = positions.len();
            // Padding may hold any row: its key is masked and its query never taken back.
            let row = |position| first + if position < length { position } else { 0 };
            rows.extend((0..width).map(|position| row(position) as u32));
            positions.extend((0..length).map(|position| (sequence * width + position) as u32));
        }
        let rows = int_tensor(rows.into_iter(), &device);
        let padded = Self::new(
            self.input_ids.select(0, rows.clone()),
            self.position_ids.select(0, rows.clone()),
            self.token_type_ids.select(0, rows),
            Sequences::padded(lengths, width, &device),
        );
        (padded, int_tensor(positions.into_iter(), &device))
    }

    /// Rows that are tensors already.
    ///
    /// # Panics
    ///
    /// If there is not one token, position and segment per row.
    pub fn new(
        input_ids: Tensor<1, Int>,
        position_ids: Tensor<1, Int>,
        token_type_ids: Tensor<1, Int>,
        sequences: Sequences,
    ) -> Self {
        for ids in [&input_ids, &position_ids, &token_type_ids] {
            assert_eq!(ids.dims(), [sequences.rows()], "one id per row of the batch");
        }
        Self { input_ids, position_ids, token_type_ids, sequences }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BertConfig, BertForSequenceClassification, NoHooks};

    #[test]
    fn padding_changes_no_logits() {
        let device = Device::flex();
        let config: BertConfig = serde_json::from_str(
            r#"{"vocab_size": 19, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 16, "max_position_embeddings": 16}"#,
        )
        .unwrap();
        let model = BertForSequenceClassification::new(&config, 3, &device);
        let ids = [vec![2, 7, 3], vec![2, 9, 9, 18, 4, 3], vec![2, 3]];
        let input = || BertInput::from_ids(&ids, &device);
        let logits = |input: &BertInput| model.forward(input, &NoHooks).into_data();
        for (widths, width) in [(1, 6), (4, 8)] {
            let (padded, positions) = input().pad(widths);
            assert_eq!(padded.sequences.rows(), 3 * width);
            let close = burn::tensor::Tolerance::<f32>::absolute(1e-6);
            logits(&padded).assert_approx_eq::<f32>(&logits(&input()), close);
            let back = padded.input_ids.select(0, positions);
            back.into_data().assert_eq(&input().input_ids.into_data(), true);
        }
    }

    #[test]
    fn a_cpu_computes_no_padding() {
        let input = BertInput::from_ids(&[vec![2, 7, 3], vec![2, 3]], &Device::flex());
        let (input, positions) = input.for_device();
        assert!(input.sequences.rows() == 5 && positions.is_none());
    }
}
