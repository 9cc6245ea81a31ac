/// A matrix of rows of which most entries are 0, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseRows {
    /// Where each row starts in the other two, and where the last ends.
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    width: usize,
}

impl SparseRows {
    /// From rows of (column, value), each column below `width`.
    pub(crate) fn new(rows: Vec<Vec<(u32, f32)>>, width: usize) -> Self {
        let entries = rows.iter().map(Vec::len).sum();
        let mut matrix = Self {
            starts: Vec::with_capacity(rows.len() + 1),
            columns: Vec::with_capacity(entries),
            values: Vec::with_capacity(entries),
            width,
        };
        matrix.starts.push(0);
        for row in rows {
            matrix.columns.extend(row.iter().map(|(column, _)| column));
            matrix.values.extend(row.iter().map(|(_, value)| value));
            matrix.starts.push(matrix.columns.len());
        }
        matrix
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Entries that are not 0.
    pub fn entries(&self) -> usize {
        self.columns.len()
    }

    /// The entries of a row that are not 0, as (column, value).
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.starts[row]..self.starts[row + 1];
        let columns = self.columns[range.clone()].iter().map(|&column| column as usize);
        columns.zip(self.values[range].iter().map(|&value| f64::from(value)))
    }

    /// The product of a row and a vector.
    pub(crate) fn dot(&self, row: usize, vector: &[f64]) -> f64 {
        self.row(row).map(|(column, value)| value * vector[column]).sum()
    }

    /// Adds `scale` times a row to a vector.
    pub(crate) fn add(&self, row: usize, scale: f64, vector: &mut [f64]) {
        for (column, value) in self.row(row) {
            vector[column] += scale * value;
        }
    }
}
