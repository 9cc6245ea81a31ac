use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::MethodConfig;

/// Which method it is, without its particulars. The order is that of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodKind {
    /// Full fine-tuning.
    Vanilla,
    /// Bottleneck adapters under a fusion layer.
    AdapterFusion,
    /// A bottleneck adapter.
    Adapter,
    /// Low-rank updates.
    Lora,
    /// A classifier on the frozen model.
    #[serde(rename = "head")]
    HeadOnly,
    /// A baseline: always the most frequent class.
    Majority,
    /// A baseline: logistic regression of weighted character n-grams.
    Tfidf,
}

impl MethodKind {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 7] = [
        Self::Vanilla,
        Self::AdapterFusion,
        Self::Adapter,
        Self::Lora,
        Self::HeadOnly,
        Self::Majority,
        Self::Tfidf,
    ];

    /// Its name in configurations, records, plans and data files: its file in `configs/methods/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vanilla => "vanilla",
            Self::AdapterFusion => "adapterfusion",
            Self::Adapter => "adapter",
            Self::Lora => "lora",
            Self::HeadOnly => "head",
            Self::Majority => "majority",
            Self::Tfidf => "tfidf",
        }
    }

    /// Whether it is a baseline: it reads the data alone, neither the model nor how it is trained nor a
    /// seed.
    pub fn is_baseline(self) -> bool {
        match self {
            Self::Majority | Self::Tfidf => true,
            Self::Vanilla | Self::AdapterFusion | Self::Adapter | Self::Lora | Self::HeadOnly => {
                false
            }
        }
    }

    /// Whether it trains a classifier on the frozen model alone: what the others are held against.
    pub fn is_probe(self) -> bool {
        self == Self::HeadOnly
    }
}

/// Its name.
impl fmt::Display for MethodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MethodKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("expected one of the methods {known}, found \"{text}\"")
        })
    }
}

impl MethodConfig {
    /// Which method it is.
    pub fn kind(&self) -> MethodKind {
        match self {
            Self::Vanilla => MethodKind::Vanilla,
            Self::HeadOnly(_) => MethodKind::HeadOnly,
            Self::Lora(_) => MethodKind::Lora,
            Self::Adapter(_) => MethodKind::Adapter,
            Self::AdapterFusion(_) => MethodKind::AdapterFusion,
            Self::Majority => MethodKind::Majority,
            Self::Tfidf(_) => MethodKind::Tfidf,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_one_name_wherever_it_is_written() {
        assert!(MethodKind::ALL.is_sorted());
        for kind in MethodKind::ALL {
            let json = format!("\"{kind}\"");
            assert_eq!(serde_json::to_string(&kind).unwrap(), json);
            assert_eq!(serde_json::from_str::<MethodKind>(&json).unwrap(), kind);
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for text in ["", "Vanilla", "lora4"] {
            let message = text.parse::<MethodKind>().unwrap_err();
            assert!(message.ends_with(&format!("head, majority, tfidf, found \"{text}\"")));
            serde_json::from_str::<MethodKind>(&format!("\"{text}\"")).unwrap_err();
        }
    }
}
