use rayon::prelude::*;

use crate::{BaselineError, SparseRows};

/// How a [`LogisticRegression`] is fitted. The names are scikit-learn's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regression {
    /// Inverse strength of the penalty.
    pub c: f64,
    /// The fit is done when the Euclidean norm of the objective's gradient falls below this.
    ///
    /// Deviation: scikit-learn's `lbfgs` compares the largest component of the gradient, which is at
    /// most the norm.
    pub tol: f64,
    /// Iterations in which it must be done.
    ///
    /// Deviation: scikit-learn warns after so many and takes what there is; here it is an error.
    pub max_iter: usize,
}

/// A linear model of the logits: scikit-learn's `LogisticRegression` with its default penalty.
///
/// Minimises `1/n Σ loss + 1/(2 C n) ‖w‖²` over the weights `w` and the intercepts, which are not
/// penalised. The loss of a text is the cross-entropy of its class: of the logistic function of one
/// output where there are two classes, of the softmax of one output per class where there are more.
/// Where every class has a text, the weights and the probabilities of the optimum are the only ones, so
/// that it does not matter who finds it. The intercepts of more than two classes are so but for a
/// constant that all have in common, and that changes no probability.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticRegression {
    /// Weights of each output, one output after the other, then the intercepts.
    parameters: Vec<f64>,
    classes: usize,
    width: usize,
    iterations: usize,
}

impl LogisticRegression {
    /// Fits the model to rows and their classes.
    ///
    /// # Panics
    ///
    /// Unless there is a class per row, below `classes`.
    pub fn fit(
        rows: &SparseRows,
        labels: &[usize],
        classes: usize,
        options: &Regression,
    ) -> Result<Self, BaselineError> {
        assert_eq!(rows.len(), labels.len(), "a class per row");
        assert!(labels.iter().all(|&label| label < classes), "a class is below {classes}");
        let found = (0..classes).filter(|class| labels.contains(class)).count();
        if found < 2 {
            return Err(BaselineError::OneClass { found });
        }
        let outputs = outputs(classes);
        let objective = Objective { rows, labels, outputs, c: options.c };
        let mut parameters = vec![0.0; outputs * (rows.width() + 1)];
        // Its own criterion is relative to the size of the weights, and its limit on a step's length is
        // meant for positions of atoms.
        let optimiser = liblbfgs::lbfgs().with_epsilon(0.0).with_max_step_size(f64::MAX);
        let evaluate =
            |parameters: &[f64], gradient: &mut [f64]| Ok(objective.evaluate(parameters, gradient));
        let mut state =
            optimiser.build(&mut parameters, evaluate).map_err(BaselineError::Optimiser)?;
        // To the library a line search that failed is no error: it stays where it was, and its next step
        // is NaN, as its weights and their gradient would then be.
        let mut iterate = || match state.propagate() {
            Ok(progress) => Ok((progress.gnorm < options.tol, progress.step.is_nan())),
            Err(error) => Err(BaselineError::Optimiser(error)),
        };
        // The first tells where it starts, and counts that.
        let (mut is_done, mut failed) = iterate()?;
        let mut iterations = 0;
        while !is_done && !failed && iterations < options.max_iter {
            (is_done, failed) = iterate()?;
            iterations += 1;
        }
        if !is_done {
            return Err(BaselineError::NotConverged { iterations, tol: options.tol });
        }
        Ok(Self { parameters, classes, width: rows.width(), iterations })
    }

    /// Logits of each row: 0 and the output where there are two classes.
    pub fn logits(&self, rows: &SparseRows) -> Vec<Vec<f32>> {
        let outputs = outputs(self.classes);
        let logits = |row: usize| {
            let mut logits: Vec<f32> = (0..outputs)
                .map(|output| output_of(rows, row, &self.parameters, output, outputs) as f32)
                .collect();
            if self.classes == 2 {
                logits.insert(0, 0.0);
            }
            logits
        };
        (0..rows.len()).into_par_iter().map(logits).collect()
    }

    /// Number of weights and intercepts.
    pub fn parameters(&self) -> usize {
        self.parameters.len()
    }

    /// Iterations that the fit took.
    pub fn iterations(&self) -> usize {
        self.iterations
    }
}

/// Parts of the rows that are summed apart: a fixed number, for sums not to depend on threads.
const PARTS: usize = 8;

fn outputs(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

fn output_of(
    rows: &SparseRows,
    row: usize,
    parameters: &[f64],
    output: usize,
    outputs: usize,
) -> f64 {
    let width = rows.width();
    rows.dot(row, &parameters[output * width..][..width]) + parameters[outputs * width + output]
}

struct Objective<'a> {
    rows: &'a SparseRows,
    labels: &'a [usize],
    outputs: usize,
    c: f64,
}

impl Objective<'_> {
    /// A row's loss, and the loss's derivative by each output, put into `derivatives`.
    fn loss(&self, row: usize, parameters: &[f64], derivatives: &mut Vec<f64>) -> f64 {
        let label = self.labels[row];
        let output = |output| output_of(self.rows, row, parameters, output, self.outputs);
        derivatives.clear();
        derivatives.extend((0..self.outputs).map(output));
        if let [z] = derivatives.as_mut_slice() {
            let y = label as f64;
            let loss = z.max(0.0) - y * *z + (-z.abs()).exp().ln_1p();
            *z = 1.0 / (1.0 + (-*z).exp()) - y;
            return loss;
        }
        let highest = derivatives.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = derivatives[label] - highest;
        for z in derivatives.iter_mut() {
            *z = (*z - highest).exp();
        }
        let sum: f64 = derivatives.iter().sum();
        for z in derivatives.iter_mut() {
            *z /= sum;
        }
        derivatives[label] -= 1.0;
        sum.ln() - own
    }

    /// Calls `each` on the rows, part by part, and gives the parts' results in order.
    fn parts<T: Send>(&self, each: impl Fn(std::ops::Range<usize>) -> T + Sync) -> Vec<T> {
        let (rows, size) = (self.rows.len(), self.rows.len().div_ceil(PARTS));
        let part = |part: usize| each((part * size).min(rows)..((part + 1) * size).min(rows));
        (0..PARTS).into_par_iter().map(part).collect()
    }

    /// The weights, without the intercepts.
    fn weights<'p>(&self, parameters: &'p [f64]) -> &'p [f64] {
        &parameters[..self.outputs * self.rows.width()]
    }

    /// The objective, and its gradient, put into `gradient`.
    fn evaluate(&self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let (outputs, width) = (self.outputs, self.rows.width());
        let parts = self.parts(|rows| {
            let mut gradient = vec![0.0; parameters.len()];
            let (mut sum, mut derivatives) = (0.0, Vec::new());
            for row in rows {
                sum += self.loss(row, parameters, &mut derivatives);
                for (output, derivative) in derivatives.iter().enumerate() {
                    self.rows.add(row, *derivative, &mut gradient[output * width..][..width]);
                    gradient[outputs * width + output] += derivative;
                }
            }
            (sum, gradient)
        });
        let texts = self.rows.len() as f64;
        let mut losses = 0.0;
        gradient.fill(0.0);
        for (loss, part) in parts {
            losses += loss;
            gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part / texts);
        }
        let weights = self.weights(parameters);
        for (sum, weight) in gradient.iter_mut().zip(weights) {
            *sum += weight / (self.c * texts);
        }
        let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
        (losses + squares / (2.0 * self.c)) / texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (SparseRows, Vec<usize>) {
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let rows = (0..60).map(|_| (0..5).map(|column| (column, next() - 0.5)).collect()).collect();
        (SparseRows::new(rows, 5), (0..60).map(|row| row * row % 7 % 3).collect())
    }

    #[test]
    fn the_gradient_is_the_costs() {
        let (rows, labels) = rows();
        let two: Vec<usize> = labels.iter().map(|label| usize::from(*label > 0)).collect();
        for (labels, outputs) in [(&labels, 3), (&two, 1)] {
            let objective = Objective { rows: &rows, labels, outputs, c: 0.7 };
            let parameters: Vec<f64> = (0..outputs * 6).map(|at| (at as f64).sin()).collect();
            let mut gradient = vec![f64::NAN; parameters.len()];
            objective.evaluate(&parameters, &mut gradient);
            for (at, derivative) in gradient.iter().enumerate() {
                let cost = |step: f64| {
                    let mut parameters = parameters.clone();
                    parameters[at] += step;
                    objective.evaluate(&parameters, &mut vec![0.0; parameters.len()])
                };
                let difference = (cost(1e-5) - cost(-1e-5)) / 2e-5;
                assert!((difference - derivative).abs() < 1e-8, "{at}: {difference} {derivative}");
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (rows, labels) = rows();
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let options = Regression { c: 1.0, tol: 1e-6, max_iter: 100 };
            pool.install(|| LogisticRegression::fit(&rows, &labels, 3, &options).unwrap())
        };
        assert_eq!(fit(1), fit(5));
    }

    #[test]
    fn what_cannot_be_fitted_is_an_error() {
        let (rows, labels) = rows();
        let options = Regression { c: 1.0, tol: 1e-6, max_iter: 2 };
        let message = |result: Result<_, BaselineError>| result.unwrap_err().to_string();
        let fitted = LogisticRegression::fit(&rows, &labels, 3, &options);
        assert!(message(fitted).contains("did not converge in 2 iterations"));
        let fitted = LogisticRegression::fit(&rows, &vec![1; 60], 3, &options);
        assert_eq!(message(fitted), "expected training texts of two or more classes, found 1");
    }

    #[test]
    fn a_line_search_that_fails_is_no_convergence() {
        let (rows, labels) = rows();
        // Nearer to 0 than rounding lets the gradient come.
        let options = Regression { c: 1.0, tol: 1e-18, max_iter: 10_000 };
        let fitted = LogisticRegression::fit(&rows, &labels, 3, &options);
        let Err(BaselineError::NotConverged { iterations, .. }) = fitted else {
            panic!("{fitted:?}")
        };
        assert!(iterations < options.max_iter, "{iterations}");
    }

    #[test]
    fn a_gradient_that_is_not_a_number_is_no_convergence() {
        let rows = SparseRows::new(vec![vec![(0, f32::NAN)], vec![(0, 1.0)]], 1);
        let options = Regression { c: 1.0, tol: 1e-6, max_iter: 100 };
        let fitted = LogisticRegression::fit(&rows, &[0, 1], 2, &options);
        assert!(matches!(fitted, Err(BaselineError::NotConverged { .. })), "{fitted:?}");
    }

    #[test]
    #[should_panic(expected = "a class is below 2")]
    fn a_class_that_is_none_of_them_is_refused() {
        let (rows, labels) = rows();
        let options = Regression { c: 1.0, tol: 1e-6, max_iter: 100 };
        let _ = LogisticRegression::fit(&rows, &labels, 2, &options);
    }
}
