use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};

use anyhow::{Context, Result};
use burn::tensor::{Device, activation};
use nsmc_bert::BertInput;
use nsmc_training::{Dashboard, Progress, among_the_threads};

use crate::args::{Form, Predict};
use crate::classifier::Classifier;
use crate::{device, logging, run_directory};

/// Texts per forward pass.
const BATCH: usize = 64;

pub(crate) fn run(args: &Predict, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = run_directory::record(&args.run, &args.moved.set)?;
    let device = device::choose(args.device)?.device;
    let classifier = Classifier::of_run(&args.run, &record, &device)?;
    let mut answers = Answers::start(args.output, &classifier, std::io::stdout().lock())?;
    let max_length = record.config.data.max_length;
    let mut progress = progress(args)?;
    let mut batch = Vec::with_capacity(BATCH);
    let mut done = 0;
    for text in texts(args)? {
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

/// A bar on the screen for a file whose answers go elsewhere.
fn progress(args: &Predict) -> Result<Progress> {
    let bar = !std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let Some(path) = args.input.as_ref().filter(|path| bar && path.is_file()) else {
        return Ok(Progress::start(Dashboard::Silent, "predict", 0));
    };
    let mut texts = 0;
    for line in BufReader::new(fs_err::File::open(path)?).split(b'\n') {
        line?;
        texts += 1;
    }
    Ok(Progress::start(Dashboard::Bar, "predict", texts))
}

/// The texts to classify; a file is read as it is needed.
fn texts(args: &Predict) -> Result<Box<dyn Iterator<Item = Result<String>>>> {
    let Some(path) = &args.input else {
        return Ok(Box::new(args.text.clone().into_iter().map(Ok)));
    };
    let (reader, name): (Box<dyn Read>, String) = if path.as_os_str() == "-" {
        (Box::new(std::io::stdin()), "standard input".into())
    } else {
        (Box::new(fs_err::File::open(path)?), path.display().to_string())
    };
    let lines = BufReader::new(reader).lines().enumerate();
    Ok(Box::new(lines.map(move |(index, line)| {
        let line = line.map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::InvalidData => {
                    ": it may be CP949 (EUC-KR): `iconv -f CP949 -t UTF-8 FILE > NEW`"
                }
                _ => "",
            };
            anyhow::Error::new(error).context(format!("{name}:{}{remedy}", index + 1))
        })?;
        // Windows begins a file in UTF-8 with a byte order mark.
        match line.strip_prefix('\u{feff}') {
            Some(text) if index == 0 => Ok(text.to_owned()),
            _ => Ok(line),
        }
    })))
}

struct Answers<W: Write> {
    form: Form,
    labels: Vec<String>,
    out: W,
    /// Texts that were longer than the model takes.
    cut: usize,
}

impl<W: Write> Answers<W> {
    fn start(form: Form, classifier: &Classifier, mut out: W) -> Result<Self> {
        let labels: Vec<String> = classifier.config.id2label.values().cloned().collect();
        if form == Form::Tsv {
            let named =
                |what: &'static str| labels.iter().map(move |label| format!("{what}_{label}"));
            let mut columns = vec!["label".to_owned()];
            columns.extend(named("probability"));
            columns.extend(named("logit"));
            columns.push("text".into());
            writeln!(out, "{}", columns.join("\t"))?;
        }
        Ok(Self { form, labels, out, cut: 0 })
    }

    fn write(
        &mut self,
        texts: &[String],
        classifier: &Classifier,
        max_length: usize,
        device: &Device,
    ) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let encodings = classifier.tokenizer.encode(texts, max_length)?;
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
        for ((text, logits), probabilities) in
            texts.iter().zip(logits.chunks(width)).zip(probabilities.chunks(width))
        {
            let class =
                (1..width).fold(0, |best, at| if logits[at] > logits[best] { at } else { best });
            match self.form {
                Form::Jsonl => {
                    let by_label = |values: &[f32]| -> serde_json::Map<String, serde_json::Value> {
                        self.labels.iter().cloned().zip(values.iter().map(|&v| v.into())).collect()
                    };
                    let answer = serde_json::json!({
                        "text": text,
                        "label": self.labels[class],
                        "probabilities": by_label(probabilities),
                        "logits": by_label(logits),
                    });
                    writeln!(self.out, "{answer}")?;
                }
                Form::Tsv => {
                    let mut fields = vec![self.labels[class].clone()];
                    fields.extend(probabilities.iter().chain(logits).map(f32::to_string));
                    // A tab would be a column, a line break a row.
                    fields.push(text.replace(['\t', '\n', '\r'], " "));
                    writeln!(self.out, "{}", fields.join("\t"))?;
                }
            }
        }
        Ok(())
    }
}
