use std::fmt;

use serde_json::{Value, json};

use crate::PeftError;

/// Which adapters are active, and how they are put together: AdapterHub's composition blocks.
///
/// Written as there: `nsmc`, `Stack(ko, nsmc)`, `Fuse(ko, nsmc)`, `Stack(ko, Fuse(a, b))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Composition {
    /// One adapter.
    Single(String),
    /// One after the other, each on the output of the one before.
    Stack(Vec<Composition>),
    /// Side by side, weighed by an AdapterFusion layer.
    Fuse(Vec<Composition>),
}

impl Composition {
    /// One adapter.
    pub fn single(name: impl Into<String>) -> Self {
        Self::Single(name.into())
    }

    /// Adapters one after the other.
    pub fn stack<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Stack(names.into_iter().map(Self::single).collect())
    }

    /// Adapters side by side under a fusion layer.
    pub fn fuse<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Fuse(names.into_iter().map(Self::single).collect())
    }

    /// Reads the written form.
    pub fn parse(text: &str) -> Result<Self, PeftError> {
        let error = |message: &str| PeftError::Composition {
            setup: text.into(),
            message: format!("{message}; expected for instance `Fuse(ko, nsmc)`"),
        };
        let (composition, rest) = parse(text, MAX_DEPTH).map_err(error)?;
        if !rest.trim().is_empty() {
            return Err(error("there is something after the composition"));
        }
        composition.check()?;
        Ok(composition)
    }

    /// Refuses what AdapterHub refuses: `Fuse` within `Fuse`, `Stack` within `Stack`, a `Fuse` more
    /// than one block deep, and anything without adapters.
    pub fn check(&self) -> Result<(), PeftError> {
        self.check_at(0)
    }

    /// `level`: in how many blocks this one lies. As in AdapterHub, a bare name is none.
    fn check_at(&self, level: usize) -> Result<(), PeftError> {
        let error = |message: &str| {
            Err(PeftError::Composition { setup: self.to_string(), message: message.into() })
        };
        let children = match self {
            Self::Single(name) => return check_name(name),
            Self::Stack(children) | Self::Fuse(children) => children,
        };
        if level > 1 && matches!(self, Self::Fuse(_)) {
            return error(
                "it is too deep: a `Fuse` is possible by itself or in a `Stack` of its own",
            );
        }
        if children.is_empty() {
            return error("expected at least one adapter");
        }
        for child in children {
            match (self, child) {
                (Self::Stack(_), Self::Stack(_)) => {
                    return error("a `Stack` within a `Stack` is not possible");
                }
                (Self::Fuse(_), Self::Fuse(_)) => {
                    return error("a `Fuse` within a `Fuse` is not possible");
                }
                _ => child.check_at(level + 1)?,
            }
        }
        Ok(())
    }

    /// The first adapter: its invertible adapter, if it has one, is the active one.
    pub fn first(&self) -> &str {
        match self {
            Self::Single(name) => name,
            Self::Stack(children) | Self::Fuse(children) => children[0].first(),
        }
    }

    /// The last adapter: its configuration decides how a fused layer starts and ends.
    pub fn last(&self) -> &str {
        match self {
            Self::Single(name) => name,
            Self::Stack(children) | Self::Fuse(children) => children[children.len() - 1].last(),
        }
    }

    /// Every adapter, in order.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Single(name) => vec![name],
            Self::Stack(children) | Self::Fuse(children) => {
                children.iter().flat_map(Self::names).collect()
            }
        }
    }

    /// The fusion layers needed, by their names.
    pub fn fusions(&self) -> Vec<String> {
        match self {
            Self::Single(_) => Vec::new(),
            Self::Stack(children) => children.iter().flat_map(Self::fusions).collect(),
            Self::Fuse(children) => {
                let mut names = vec![fusion_name(children)];
                names.extend(children.iter().flat_map(Self::fusions));
                names
            }
        }
    }

    /// Every `Fuse`, the inner ones first.
    pub fn fuse_blocks(&self) -> Vec<&Self> {
        let (Self::Stack(children) | Self::Fuse(children)) = self else { return Vec::new() };
        let mut blocks: Vec<&Self> = children.iter().flat_map(Self::fuse_blocks).collect();
        if matches!(self, Self::Fuse(_)) {
            blocks.push(self);
        }
        blocks
    }

    /// AdapterHub's `adapter_setup.json` form.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Single(name) => json!({"type": "single", "children": [name]}),
            Self::Stack(children) => {
                json!({"type": "Stack", "children": children.iter().map(Self::to_json).collect::<Vec<_>>()})
            }
            Self::Fuse(children) => {
                json!({"type": "Fuse", "children": children.iter().map(Self::to_json).collect::<Vec<_>>()})
            }
        }
    }

    /// Reads AdapterHub's `adapter_setup.json` form.
    pub fn from_json(value: &Value) -> Result<Self, PeftError> {
        let error = |message: String| PeftError::Composition { setup: value.to_string(), message };
        let children = value["children"].as_array();
        let children = children.ok_or_else(|| error("expected an array `children`".into()))?;
        let composition = match value["type"].as_str() {
            Some("single") => match children.as_slice() {
                [Value::String(name)] => Self::single(name),
                _ => return Err(error("a `single` has one name".into())),
            },
            Some(kind @ ("Stack" | "Fuse")) => {
                let children = children.iter().map(Self::from_json).collect::<Result<_, _>>()?;
                if kind == "Stack" { Self::Stack(children) } else { Self::Fuse(children) }
            }
            Some(other) => {
                return Err(error(format!(
                    "the composition `{other}` is not implemented; single, Stack and Fuse are"
                )));
            }
            None => return Err(error("expected a string `type`".into())),
        };
        composition.check()?;
        Ok(composition)
    }
}

/// AdapterHub's name of the fusion of these children: their last adapters, joined by commas.
pub(crate) fn fusion_name(children: &[Composition]) -> String {
    children.iter().map(Composition::last).collect::<Vec<_>>().join(",")
}

/// Names become parts of tensor names and of file names.
pub(crate) fn check_name(name: &str) -> Result<(), PeftError> {
    let valid = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-');
    if name.is_empty() || !name.chars().all(valid) {
        return Err(PeftError::Name(name.into()));
    }
    // The library's `add_adapter` fails of these, so that no file with such a name could be loaded.
    if MODULE_DICT.split(' ').any(|attribute| attribute == name) {
        return Err(PeftError::AttributeName(name.into()));
    }
    Ok(())
}

/// `dir(torch.nn.ModuleDict())` of torch 2.11 in Python 3.11, sorted.
const MODULE_DICT: &str = "\
    T_destination __annotations__ __call__ __class__ __contains__ __delattr__ __delitem__ __dict__ \
    __dir__ __doc__ __eq__ __format__ __ge__ __getattr__ __getattribute__ __getitem__ __getstate__ \
    __gt__ __hash__ __init__ __init_subclass__ __iter__ __le__ __len__ __lt__ __module__ __ne__ \
    __new__ __reduce__ __reduce_ex__ __repr__ __setattr__ __setitem__ __setstate__ __sizeof__ \
    __str__ __subclasshook__ __weakref__ _apply _backward_hooks _backward_pre_hooks _buffers \
    _call_impl _compiled_call_impl _forward_hooks _forward_hooks_always_called \
    _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs \
    _get_backward_hooks _get_backward_pre_hooks _get_name _is_full_backward_hook \
    _load_from_state_dict _load_state_dict_post_hooks _load_state_dict_pre_hooks \
    _maybe_warn_non_full_backward_hook _modules _named_members _non_persistent_buffers_set \
    _parameters _register_load_state_dict_pre_hook _register_state_dict_hook \
    _replicate_for_data_parallel _save_to_state_dict _slow_forward _state_dict_hooks \
    _state_dict_pre_hooks _version _wrapped_call_impl add_module apply bfloat16 buffers \
    call_super_init children clear compile cpu cuda double dump_patches eval extra_repr float \
    forward get_buffer get_extra_state get_parameter get_submodule half ipu items keys \
    load_state_dict modules mtia named_buffers named_children named_modules named_parameters \
    parameters pop register_backward_hook register_buffer register_forward_hook \
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook \
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module \
    register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ \
    set_extra_state set_submodule share_memory state_dict to to_empty train training type update \
    values xpu zero_grad";

/// Most blocks within one another.
const MAX_DEPTH: usize = 32;

fn parse(text: &str, depth: usize) -> Result<(Composition, &str), &'static str> {
    let depth = depth.checked_sub(1).ok_or("there are too many blocks within one another")?;
    let text = text.trim_start();
    let end = text.find(['(', ')', ',']).unwrap_or(text.len());
    let (name, rest) = (text[..end].trim_end(), &text[end..]);
    let Some(mut rest) = rest.strip_prefix('(') else {
        return if name.is_empty() {
            Err("an adapter's name is missing")
        } else {
            Ok((Composition::single(name), rest))
        };
    };
    let mut children = Vec::new();
    loop {
        let (child, after) = parse(rest, depth)?;
        children.push(child);
        let after = after.trim_start();
        if let Some(after) = after.strip_prefix(')') {
            return match name {
                "Stack" => Ok((Composition::Stack(children), after)),
                "Fuse" => Ok((Composition::Fuse(children), after)),
                _ => Err("only `Stack` and `Fuse` are implemented"),
            };
        }
        rest = after.strip_prefix(',').ok_or("a `)` is missing")?;
    }
}

impl fmt::Display for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, children) = match self {
            Self::Single(name) => return f.write_str(name),
            Self::Stack(children) => ("Stack", children),
            Self::Fuse(children) => ("Fuse", children),
        };
        let children: Vec<String> = children.iter().map(Self::to_string).collect();
        write!(f, "{kind}({})", children.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composition_survives_being_written_and_read() {
        for text in [
            "nsmc",
            "Stack(ko, nsmc)",
            "Fuse(ko, nsmc)",
            "Stack(ko, Fuse(a, b))",
            "Fuse(Stack(ko, a), b)",
            "Stack(ko, Fuse(Stack(x, a), b))",
        ] {
            let composition = Composition::parse(text).unwrap();
            assert_eq!(composition.to_string(), text);
            assert_eq!(Composition::from_json(&composition.to_json()).unwrap(), composition);
        }
        assert_eq!(
            Composition::parse(" Fuse( ko,nsmc )").unwrap(),
            Composition::fuse(["ko", "nsmc"])
        );
    }

    #[test]
    fn first_last_names_and_fusions_look_into_nested_blocks() {
        let composition = Composition::parse("Stack(ko, Fuse(Stack(x, a), b))").unwrap();
        assert_eq!((composition.first(), composition.last()), ("ko", "b"));
        assert_eq!(composition.names(), ["ko", "x", "a", "b"]);
        assert_eq!(composition.fusions(), ["a,b"]);
        let blocks: Vec<String> =
            composition.fuse_blocks().into_iter().map(Composition::to_string).collect();
        assert_eq!(blocks, ["Fuse(Stack(x, a), b)"]);
    }

    #[test]
    fn what_cannot_be_composed_is_refused() {
        for (text, expected) in [
            ("Fuse(a, Fuse(b, c))", "a `Fuse` within a `Fuse`"),
            ("Stack(Stack(a, b), c)", "a `Stack` within a `Stack`"),
            // Neither is directly within the other; `Fuse(Stack(a, b), c)` in a `Stack` is fine.
            ("Fuse(Stack(c, Fuse(a, b)), a)", "`Fuse(a, b)`: it is too deep"),
            ("Stack(x, Fuse(Stack(c, Fuse(a, b)), a))", "`Fuse(a, b)`: it is too deep"),
            ("Parallel(a, b)", "only `Stack` and `Fuse`"),
            ("Fuse(a, b", "a `)` is missing"),
            ("Fuse(a, )", "name is missing"),
            ("Fuse(a, b) c", "something after"),
            ("", "name is missing"),
            ("Fuse(a/b)", "expected an adapter's name"),
            ("..", "expected an adapter's name"),
            (
                "Stack(ko, train)",
                "`torch.nn.ModuleDict`, which has an attribute `train` of its own",
            ),
            ("_modules", "an attribute `_modules`"),
            ("zero_grad", "an attribute `zero_grad`"),
            ("T_destination", "an attribute `T_destination`"),
            (&"Stack(a, Fuse(b, ".repeat(100_000), "too many blocks within one another"),
        ] {
            let message = Composition::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let parallel = json!({"type": "Parallel", "children": []});
        let message = Composition::from_json(&parallel).unwrap_err().to_string();
        assert!(message.contains("`Parallel` is not implemented"), "{message}");
    }
}
