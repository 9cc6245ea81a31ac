use serde::{Deserialize, Serialize};

/// What a run says of itself on stderr under `nsmc train --progress-json`: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum ProgressEvent {
    /// One of the run's trainings begins; AdapterFusion has two, from 1.
    Stage {
        /// Which.
        stage: usize,
        /// Of how many.
        stages: usize,
    },
    /// So many reviews are done.
    Progress {
        /// `epoch 1/4`, `validation 1/4` or `test`.
        label: String,
        /// Reviews done.
        done: usize,
        /// Of how many.
        total: usize,
        /// Mean loss over them, where it is known.
        loss: Option<f64>,
    },
    /// A line for a person.
    Said {
        /// The line.
        text: String,
    },
}

impl ProgressEvent {
    /// The event that a line of stderr is; none for a line that is none.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The epoch of a label and the number of epochs, `epoch 2/4`; none outside of training steps.
    pub fn epoch(label: &str) -> Option<(usize, usize)> {
        let (epoch, epochs) = label.strip_prefix("epoch ")?.split_once('/')?;
        Some((epoch.parse().ok()?, epochs.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_from_its_line_and_other_lines_are_none() {
        let event = ProgressEvent::Progress {
            label: "epoch 2/4".into(),
            done: 320,
            total: 900,
            loss: Some(0.5),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.starts_with(r#"{"event":"progress","label":"epoch 2/4""#), "{line}");
        assert_eq!(ProgressEvent::parse(&line), Some(event));
        assert_eq!(ProgressEvent::parse("error: no such file"), None);
        assert_eq!(ProgressEvent::epoch("epoch 2/4"), Some((2, 4)));
        assert_eq!(ProgressEvent::epoch("validation 2/4"), None);
    }
}
