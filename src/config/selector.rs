//! A metric's name with label matchers: `requests_total{endpoint="/predict",code=~"5.."}`.

use regex::Regex;

use super::plan::{LabelMatcher, MatchOp, MetricSelector};

impl MetricSelector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, labels) = match text.split_once('{') {
            Some((name, rest)) => {
                let labels = rest.trim_end().strip_suffix('}').ok_or("the closing `}` is missing")?;
                (name.trim(), labels)
            }
            None => (text, ""),
        };
        let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
        let other = |c: char| first(c) || c.is_ascii_digit();
        if !name.starts_with(first) || !name.chars().all(other) {
            return Err("the metric's name is not one".to_owned());
        }
        let mut matchers = Vec::new();
        let mut rest = labels.trim_start();
        while !rest.is_empty() {
            let (matcher, after) = matcher(rest)?;
            matchers.push(matcher);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after.trim_start(),
                None if rest.is_empty() => {}
                None => return Err("a comma is missing between labels".to_owned()),
            }
        }
        Ok(Self { name: name.to_owned(), matchers })
    }
}

fn matcher(text: &str) -> Result<(LabelMatcher, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (label, rest) = text.split_at(end);
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a label's name is missing".to_owned());
    }
    let rest = rest.trim_start();
    let (op, rest) = ["=~", "!~", "!=", "="]
        .iter()
        .find_map(|op| rest.strip_prefix(op).map(|rest| (*op, rest)))
        .ok_or_else(|| format!("after `{label}`, one of = != =~ !~ is missing"))?;
    let (value, rest) = quoted(rest.trim_start()).ok_or_else(|| format!("the value of `{label}` is not in quotes"))?;
    let regex = |value: &str| {
        Regex::new(&format!("^(?:{value})$")).map_err(|_| format!("the value of `{label}` is no regular expression"))
    };
    let op = match op {
        "=~" => MatchOp::Matches(regex(&value)?),
        "!~" => MatchOp::NotMatches(regex(&value)?),
        "!=" => MatchOp::NotEqual(value),
        _ => MatchOp::Equal(value),
    };
    Ok((LabelMatcher { label: label.to_owned(), op }, rest))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_and_a_name_with_labels_are_selectors() {
        assert!(MetricSelector::parse("up").is_ok_and(|s| s.matchers.is_empty()));
        let text = r#":tensorflow:serving:request_count{model_name="a,}b", status!="OK", code=~"5..",x!~"y" , }"#;
        let selector = MetricSelector::parse(text).expect("valid");
        assert_eq!(selector.name, ":tensorflow:serving:request_count");
        assert_eq!(selector.matchers.len(), 4);
        assert!(matches!(&selector.matchers[0].op, MatchOp::Equal(value) if value == "a,}b"));
        assert!(matches!(&selector.matchers[2].op, MatchOp::Matches(r) if r.is_match("503") && !r.is_match("1503")));
    }

    #[test]
    fn what_is_no_selector_says_why() {
        for text in
            ["", "9a", "a{", "a{b}", "a{b=c}", "a{b=\"c\"", "a{b=\"c\" d=\"e\"}", "a{=\"c\"}", "a{b=~\"(\"}", "a b"]
        {
            assert!(MetricSelector::parse(text).is_err(), "{text}");
        }
    }
}
