//! What PEFT, adapters and transformers call what has another name here.

/// A library's name, the key that there is in its place, and what else to know of that.
type Renamed = (&'static str, &'static str, &'static str);

/// Whose names they are, and the names. The tables of docs/methods.md are the same.
const NAMES: [(&str, &[Renamed]); 3] = [
    (
        "PEFT's",
        &[
            ("r", "method.rank", ""),
            ("lora_alpha", "method.alpha", ""),
            ("lora_dropout", "method.dropout", ""),
            (
                "modules_to_save",
                "method.trains",
                ": `\"head\"`, `\"pooler\"`, `\"layer_norm\"`, `\"embeddings\"`",
            ),
            ("peft_type", "method.name", ": `\"lora\"`"),
        ],
    ),
    (
        "adapters'",
        &[
            (
                "mh_adapter",
                "method.adapter.config",
                ": `\"houlsby\"` has adapters behind attention, too",
            ),
            (
                "output_adapter",
                "method.adapter.config",
                ": `\"pfeiffer\"` and `\"houlsby\"` both have adapters behind the feed-forward layer",
            ),
            ("inv_adapter", "method.adapter.invertible", ": `true` is `\"nice\"`"),
        ],
    ),
    (
        "transformers'",
        &[
            (
                "per_device_train_batch_size",
                "training.train_batch_size",
                ": texts per step, on all GPUs together",
            ),
            (
                "gradient_accumulation_steps",
                "training.train_batch_size",
                ": the whole step's, in one batch",
            ),
            ("per_device_eval_batch_size", "evaluation.eval_batch_size", ""),
            (
                "optim",
                "training.optimizer",
                ": `\"adamw_torch\"`, or `\"adamw_hf\"`, transformers' former one",
            ),
            (
                "lr_scheduler_type",
                "training.warmup_ratio",
                ": the rate rises for that share of the steps, then falls linearly to 0",
            ),
            ("warmup_steps", "training.warmup_ratio", ": a share of the steps"),
            ("max_steps", "training.num_train_epochs", ": whole epochs"),
            (
                "load_best_model_at_end",
                "training.selection",
                ": `\"best\"`, by the accuracy on the validation split; `\"last\"` takes the last \
                 epoch's model",
            ),
            (
                "metric_for_best_model",
                "training.selection",
                ": by the accuracy on the validation split, always",
            ),
            (
                "bf16",
                "training.precision",
                ": `\"bf16\"`, on a GPU alone, rounds the factors of matrix products; weights, \
                 gradients and moments stay float32",
            ),
            ("fp16", "training.precision", ": there is no float16, but `\"bf16\"`"),
            ("seed", "grid.seeds", ": in a profile, or `--seed`"),
            ("max_seq_length", "data.max_length", ""),
            ("model_name_or_path", "model.name", ""),
        ],
    ),
];

/// Keys that have a library's name, and may be looked for elsewhere.
const SAME: [(&str, &[&str]); 4] = [
    (
        "method",
        &[
            "target_modules",
            "exclude_modules",
            "layers_to_transform",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "use_dora",
            "bias",
        ],
    ),
    ("method.adapter", &["reduction_factor", "leave_out", "non_linearity"]),
    (
        "training",
        &[
            "num_train_epochs",
            "learning_rate",
            "warmup_ratio",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "weight_decay",
            "max_grad_norm",
            "save_steps",
        ],
    ),
    ("data", &["max_length"]),
];

/// Where a key stands that was looked for by a library's name in the table `path`, whose keys are
/// `known`; none if it is no such name, or the key is none of this table.
pub(crate) fn hint(name: &str, path: &str, known: &[String]) -> Option<String> {
    let is_there = |key: &str| {
        let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
        table != path || known.iter().any(|known| known == key)
    };
    for (library, names) in NAMES {
        let found = names.iter().find(|(theirs, key, _)| *theirs == name && is_there(key));
        if let Some((theirs, key, more)) = found {
            return Some(format!("{library} `{theirs}` is `{key}` here{more}"));
        }
    }
    let mut same = SAME.into_iter().filter(|(_, names)| names.contains(&name));
    let key = same.next().map(|(table, _)| format!("{table}.{name}"));
    key.filter(|key| is_there(key)).map(|key| format!("it is `{key}`"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::{Document, ExperimentConfig};

    #[test]
    fn the_documents_tables_are_these() {
        let document = include_str!("../../../docs/methods.md");
        let rows = document.lines().filter(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            cells.len() == 2 && line.starts_with("| `")
        });
        let names = NAMES.into_iter().flat_map(|(_, names)| names);
        let expected: Vec<String> =
            names.map(|(theirs, key, more)| format!("| `{theirs}` | `{key}`{more} |")).collect();
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        for name in SAME.into_iter().flat_map(|(_, names)| names) {
            let named = format!("`{name}`");
            assert!(document.contains(&named), "{named} is not in docs/methods.md");
        }
    }

    #[test]
    fn each_name_stands_for_a_key_that_there_is() {
        let methods = [
            include_str!("../../../configs/methods/adapter.toml"),
            include_str!("../../../configs/methods/lora.toml"),
        ];
        let is_known = |key: &str| {
            methods.iter().any(|method| {
                let path = Path::new("run.toml");
                let mut document = Document::parse(method, path).unwrap();
                document.set("model.source=pretrained").unwrap();
                // No key takes a date.
                document.set(&format!("{key}=2024-01-01")).unwrap();
                let message = ExperimentConfig::from_document(&document).unwrap_err().to_string();
                message.contains(&format!("`{key}`: expected"))
            })
        };
        assert!(!is_known("training.no_such_key"));
        let same = SAME
            .into_iter()
            .flat_map(|(table, names)| names.iter().map(move |name| format!("{table}.{name}")));
        let renamed = NAMES.into_iter().flat_map(|(_, names)| names);
        let keys: BTreeSet<String> =
            renamed.map(|(_, key, _)| (*key).to_owned()).chain(same).collect();
        for key in keys.iter().filter(|key| *key != "grid.seeds") {
            assert!(is_known(key), "{key}");
        }
    }

    #[test]
    fn a_key_of_another_method_is_no_answer() {
        let known = ["name", "setup"].map(str::to_owned);
        assert_eq!(hint("r", "method", &known), None);
        assert_eq!(hint("target_modules", "method", &known), None);
        let known = ["name", "rank"].map(str::to_owned);
        let expected = "PEFT's `r` is `method.rank` here";
        assert_eq!(hint("r", "method", &known).as_deref(), Some(expected));
        assert_eq!(hint("r", "", &known).as_deref(), Some(expected));
    }
}
