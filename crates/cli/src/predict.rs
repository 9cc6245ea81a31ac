use std::io::{BufRead, BufReader, IsTerminal, Write};

use anyhow::{Context, Result};
use burn::tensor::{Device, activation};
use nsmc_bert::BertInput;
use nsmc_eval::class_of;
use nsmc_training::{Dashboard, Progress, among_the_threads};
use serde::{Serialize, Serializer};

use crate::args::{Form, Predict};
use crate::classifier::Classifier;
use crate::texts::{Text, Texts};
use crate::{device, logging, run_directory};

/// Texts per forward pass.
const BATCH: usize = 64;

pub(crate) fn run(args: &Predict, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = run_directory::record(&args.run, &args.moved.set)?;
    let texts = Texts::open(args, &record.config.data)?;
    let device = device::choose(args.device)?.device;
    let classifier = Classifier::of_run(&args.run, &record, &device)?;
    let stdout = std::io::stdout().lock();
    let mut answers = Answers::start(args.output, texts.have_ids, &classifier, stdout)?;
    let max_length = record.config.data.max_length;
    let mut progress = progress(args, texts.count)?;
    let mut batch = Vec::with_capacity(BATCH);
    let mut done = 0;
    for text in texts.each {
        batch.push(text?);
        if batch.len() == BATCH {
            answers.write(&batch, &classifier, max_length, &device)?;
            batch.clear();
            done += BATCH;
            progress.update(done, None);
        }
    }
    answers.write(&batch, &classifier, max_length, &device)?;
    progress.update(done + batch.len(), None);
    progress.finish();
    if answers.cut > 0 {
        tracing::warn!("texts that were cut to {max_length} tokens: {}", answers.cut);
    }
    Ok(answers.out.flush()?)
}

/// A bar on the screen for a file whose answers go elsewhere; `count` is that of its texts if it is known
/// already.
fn progress(args: &Predict, count: Option<usize>) -> Result<Progress> {
    let bar = !std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let Some(path) = args.input.as_ref().filter(|path| bar && path.is_file()) else {
        return Ok(Progress::start(Dashboard::Silent, "predict", 0));
    };
    let mut lines = 0;
    if count.is_none() {
        for line in BufReader::new(fs_err::File::open(path)?).split(b'\n') {
            line?;
            lines += 1;
        }
    }
    Ok(Progress::start(Dashboard::Bar, "predict", count.unwrap_or(lines)))
}

struct Answers<W: Write> {
    form: Form,
    labels: Vec<String>,
    out: W,
    /// Texts that were longer than the model takes.
    cut: usize,
}

/// A line of JSON.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    text: &'a str,
    label: &'a str,
    probabilities: ByLabel<'a>,
    logits: ByLabel<'a>,
}

/// A number per label. As `f32` each is written with the fewest digits that it is read back from; a
/// `Value` holds an `f64`, which has more.
struct ByLabel<'a>(&'a [String], &'a [f32]);

impl Serialize for ByLabel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

impl<W: Write> Answers<W> {
    fn start(form: Form, have_ids: bool, classifier: &Classifier, mut out: W) -> Result<Self> {
        let labels: Vec<String> = classifier.config.id2label.values().cloned().collect();
        if form == Form::Tsv {
            let named =
                |what: &'static str| labels.iter().map(move |label| format!("{what}_{label}"));
            let mut columns: Vec<String> = have_ids.then(|| "id".into()).into_iter().collect();
            columns.push("label".into());
            columns.extend(named("probability"));
            columns.extend(named("logit"));
            columns.push("text".into());
            writeln!(out, "{}", columns.join("\t"))?;
        }
        Ok(Self { form, labels, out, cut: 0 })
    }

    fn write(
        &mut self,
        texts: &[Text],
        classifier: &Classifier,
        max_length: usize,
        device: &Device,
    ) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let documents: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        let encodings = classifier.tokenizer.encode(&documents, max_length)?;
        self.cut += encodings.iter().filter(|encoding| encoding.truncated).count();
        let ids: Vec<Vec<u32>> = encodings.into_iter().map(|encoding| encoding.input_ids).collect();
        let (input, _) = BertInput::from_ids(&ids, device).for_device();
        let logits = among_the_threads(device, || classifier.model.forward(&input));
        let probabilities = activation::softmax(logits.clone(), 1);
        let logits: Vec<f32> = logits.try_into_vec_as().context("the logits")?;
        let probabilities: Vec<f32> =
            probabilities.try_into_vec_as().context("the probabilities")?;
        anyhow::ensure!(
            logits.iter().all(|logit| logit.is_finite()),
            "the model answers with a logit that is not a finite number"
        );
        let width = self.labels.len();
        for ((Text { id, text }, logits), probabilities) in
            texts.iter().zip(logits.chunks(width)).zip(probabilities.chunks(width))
        {
            let class = class_of(logits);
            match self.form {
                Form::Jsonl => {
                    let answer = Answer {
                        id: id.as_deref(),
                        text,
                        label: &self.labels[class],
                        probabilities: ByLabel(&self.labels, probabilities),
                        logits: ByLabel(&self.labels, logits),
                    };
                    let answer = serde_json::to_string(&answer)?;
                    writeln!(self.out, "{answer}")?;
                }
                Form::Tsv => {
                    // A tab would be a column, a line break a row.
                    let field = |text: &str| text.replace(['\t', '\n', '\r'], " ");
                    let mut fields: Vec<String> = id.as_deref().map(field).into_iter().collect();
                    fields.push(self.labels[class].clone());
                    fields.extend(probabilities.iter().chain(logits).map(f32::to_string));
                    fields.push(field(text));
                    writeln!(self.out, "{}", fields.join("\t"))?;
                }
            }
        }
        Ok(())
    }
}
