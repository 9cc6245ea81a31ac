use argmin::core::{
    CostFunction, Error, Executor, Gradient, State, TerminationReason, TerminationStatus,
};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use rayon::prelude::*;

use crate::{BaselineError, SparseRows};

/// How a [`LogisticRegression`] is fitted. The names are scikit-learn's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regression {
    /// Inverse strength of the penalty.
    pub c: f64,
    /// The fit is done when the Euclidean norm of the objective's gradient falls below this.
    pub tol: f64,
    /// Iterations in which it must be done.
    pub max_iter: u64,
}

/// A linear model of the logits: scikit-learn's `LogisticRegression` with its default penalty.
///
/// Minimises `1/n Σ loss + 1/(2 C n) ‖w‖²` over the weights `w` and the intercepts, which are not
/// penalised. The loss of a text is the cross-entropy of its class: of the logistic function of one
/// output where there are two classes, of the softmax of one output per class where there are more.
/// The optimum is the only one, so that it does not matter who finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticRegression {
    /// Weights of each output, one output after the other, then the intercepts.
    parameters: Vec<f64>,
    classes: usize,
    width: usize,
    iterations: u64,
}

impl LogisticRegression {
    /// Fits the model to rows and their classes, each below `classes`.
    ///
    /// # Panics
    ///
    /// Unless there is a class per row.
    pub fn fit(
        rows: &SparseRows,
        labels: &[usize],
        classes: usize,
        options: &Regression,
    ) -> Result<Self, BaselineError> {
        assert_eq!(rows.len(), labels.len(), "a class per row");
        let found = (0..classes).filter(|class| labels.contains(class)).count();
        if found < 2 {
            return Err(BaselineError::OneClass { found });
        }
        let outputs = outputs(classes);
        let objective = Objective { rows, labels, outputs, c: options.c };
        let start = vec![0.0; outputs * (rows.width() + 1)];
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), HISTORY)
            .with_tolerance_grad(options.tol)
            .and_then(|solver| solver.with_tolerance_cost(0.0))
            .map_err(BaselineError::Optimiser)?;
        let run = Executor::new(objective, solver)
            .configure(|state| state.param(start).max_iters(options.max_iter))
            .timer(false)
            .run();
        let mut state = run.map_err(BaselineError::Optimiser)?.state;
        let iterations = state.get_iter();
        let done = TerminationStatus::Terminated(TerminationReason::SolverConverged);
        let parameters = (*state.get_termination_status() == done).then(|| state.take_param());
        let Some(parameters) = parameters.flatten() else {
            return Err(BaselineError::NotConverged { iterations, tol: options.tol });
        };
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
    pub fn iterations(&self) -> u64 {
        self.iterations
    }
}

/// Steps that L-BFGS remembers: scipy's default, and so scikit-learn's.
const HISTORY: usize = 10;
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
        derivatives.iter_mut().for_each(|z| *z = (*z - highest).exp());
        let sum: f64 = derivatives.iter().sum();
        derivatives.iter_mut().for_each(|z| *z /= sum);
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

    fn reviews(&self) -> f64 {
        self.rows.len() as f64
    }
}

impl CostFunction for Objective<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, parameters: &Vec<f64>) -> Result<f64, Error> {
        let losses = self.parts(|rows| {
            let mut derivatives = Vec::new();
            rows.map(|row| self.loss(row, parameters, &mut derivatives)).sum::<f64>()
        });
        let squares: f64 = self.weights(parameters).iter().map(|weight| weight * weight).sum();
        Ok((losses.iter().sum::<f64>() + squares / (2.0 * self.c)) / self.reviews())
    }
}

impl Gradient for Objective<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, parameters: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let (outputs, width) = (self.outputs, self.rows.width());
        let parts = self.parts(|rows| {
            let mut gradient = vec![0.0; parameters.len()];
            let mut derivatives = Vec::new();
            for row in rows {
                self.loss(row, parameters, &mut derivatives);
                for (output, derivative) in derivatives.iter().enumerate() {
                    self.rows.add(row, *derivative, &mut gradient[output * width..][..width]);
                    gradient[outputs * width + output] += derivative;
                }
            }
            gradient
        });
        let mut gradient = vec![0.0; parameters.len()];
        for part in parts {
            gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        let weights = self.weights(parameters);
        for (sum, weight) in gradient.iter_mut().zip(weights) {
            *sum += weight / self.c;
        }
        gradient.iter_mut().for_each(|sum| *sum /= self.reviews());
        Ok(gradient)
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
            let gradient = objective.gradient(&parameters).unwrap();
            for (at, derivative) in gradient.iter().enumerate() {
                let cost = |step: f64| {
                    let mut parameters = parameters.clone();
                    parameters[at] += step;
                    objective.cost(&parameters).unwrap()
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
}
