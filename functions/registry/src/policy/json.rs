//! Reads JSON (RFC 8259) into a [tree](super::tree), with the position of every value.
//!
//! Other than most readers, it refuses a name that a table has twice: the reader of such a document could see another value
//! than the registry.

use std::collections::BTreeSet;
use std::str::Chars;

use super::mistake::{Mistake, Mistakes, quoted};
use super::tree::{Member, Node, NodeValue, Position};

/// How deep values may be nested. A policy needs five levels.
const MAX_DEPTH: usize = 16;

/// Reads a text that is one JSON value. Fails with the mistakes, at most one of which is a mistake of the grammar: reading ends
/// there.
pub fn read(text: &str) -> Result<Node, Vec<Mistake>> {
    let mut reader = Reader {
        rest: text.chars(),
        at: Position::START,
        mistakes: Mistakes::default(),
    };
    let node = match reader.document() {
        Ok(node) => Some(node),
        Err(Mistake { at, message }) => {
            reader.mistakes.add(at, message);
            None
        }
    };
    reader.mistakes.result(node)
}

struct Reader<'a> {
    rest: Chars<'a>,
    /// The position of the next character.
    at: Position,
    /// Mistakes after which reading went on.
    mistakes: Mistakes,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Node, Mistake> {
        let node = self.value(MAX_DEPTH)?;
        self.skip_spaces();
        match self.peek() {
            None => Ok(node),
            Some(_) => Err(self.unexpected("the end of the document")),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(next)
    }

    fn next_if(&mut self, expected: impl Fn(char) -> bool) -> Option<char> {
        self.peek().filter(|next| expected(*next))?;
        self.next()
    }

    fn skip_spaces(&mut self) {
        while self.next_if(|next| matches!(next, ' ' | '\t' | '\r' | '\n')).is_some() {}
    }

    fn unexpected(&self, expected: &str) -> Mistake {
        let found = match self.peek() {
            Some(next) => format!("{next:?}"),
            None => "the end of the document".to_owned(),
        };
        Mistake::new(self.at, format!("expected {expected}, found {found}"))
    }

    fn expect(&mut self, expected: char) -> Result<(), Mistake> {
        match self.next_if(|next| next == expected) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(&format!("{expected:?}"))),
        }
    }

    /// A value with at most `depth` levels.
    fn value(&mut self, depth: usize) -> Result<Node, Mistake> {
        self.skip_spaces();
        let at = self.at;
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Mistake::new(at, format!("more than {MAX_DEPTH} levels of values")));
        };
        let value = match self.peek() {
            Some('{') => self.table(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => NodeValue::Text(self.text()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z') => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, value })
    }

    fn table(&mut self, depth: usize) -> Result<NodeValue, Mistake> {
        let (mut members, mut names) = (Vec::new(), BTreeSet::new());
        self.expect('{')?;
        self.skip_spaces();
        if self.next_if(|next| next == '}').is_some() {
            return Ok(NodeValue::Table(members));
        }
        loop {
            self.skip_spaces();
            let at = self.at;
            if self.peek() != Some('"') {
                return Err(self.unexpected("the name of a member"));
            }
            let name = self.text()?;
            self.skip_spaces();
            self.expect(':')?;
            let node = self.value(depth)?;
            if names.insert(name.clone()) {
                members.push(Member { at, name, node });
            } else {
                self.mistakes
                    .add(at, format!("the table has the member {} twice", quoted(&name)));
            }
            self.skip_spaces();
            match self.peek() {
                Some(',') => self.expect(',')?,
                Some('}') => {
                    self.expect('}')?;
                    return Ok(NodeValue::Table(members));
                }
                _ => return Err(self.unexpected("',' or '}'")),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<NodeValue, Mistake> {
        let mut nodes = Vec::new();
        self.expect('[')?;
        self.skip_spaces();
        if self.next_if(|next| next == ']').is_some() {
            return Ok(NodeValue::List(nodes));
        }
        loop {
            nodes.push(self.value(depth)?);
            self.skip_spaces();
            match self.peek() {
                Some(',') => self.expect(',')?,
                Some(']') => {
                    self.expect(']')?;
                    return Ok(NodeValue::List(nodes));
                }
                _ => return Err(self.unexpected("',' or ']'")),
            }
        }
    }

    fn text(&mut self) -> Result<String, Mistake> {
        let begin = self.at;
        self.expect('"')?;
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped(at)?),
                Some('\0'..='\u{1f}') => {
                    return Err(Mistake::new(at, "a control character in a text has to be escaped"));
                }
                Some(next) => text.push(next),
                None => return Err(Mistake::new(begin, "the text does not end")),
            }
        }
    }

    /// The character that an escape stands for. `at` is the position of the backslash, which was read.
    fn escaped(&mut self, at: Position) -> Result<char, Mistake> {
        let wrong = || Mistake::new(at, "not an escape of JSON");
        match self.next().ok_or_else(wrong)? {
            same @ ('"' | '\\' | '/') => Ok(same),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => {
                let mut units = vec![self.code_unit().ok_or_else(wrong)?];
                if (0xd800..0xdc00).contains(&units[0]) {
                    let is_pair = self.next() == Some('\\') && self.next() == Some('u');
                    units.push(self.code_unit().filter(|_| is_pair).ok_or_else(wrong)?);
                }
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(decoded)), None) => Ok(decoded),
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }

    fn code_unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next()?.to_digit(16)?;
            unit = unit << 4 | u16::try_from(digit).ok()?;
        }
        Some(unit)
    }

    fn number(&mut self) -> Result<NodeValue, Mistake> {
        let at = self.at;
        let mut text = String::new();
        while let Some(next) = self.next_if(|next| next.is_ascii_digit() || "+-.eE".contains(next)) {
            text.push(next);
        }
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let is_whole = text != "-0" && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_whole && (digits == "0" || !digits.starts_with('0')) {
            return Ok(text
                .parse()
                .map_or(NodeValue::Other("a number that is too large"), NodeValue::Integer));
        }
        // No policy has such a number, so whether it is well-formed is not important.
        if text.parse::<f64>().is_ok() && !is_whole {
            return Ok(NodeValue::Other("a number with a fraction"));
        }
        Err(Mistake::new(at, format!("not a number: {}", quoted(&text))))
    }

    fn word(&mut self) -> Result<NodeValue, Mistake> {
        let at = self.at;
        let mut word = String::new();
        while let Some(next) = self.next_if(|next| next.is_ascii_alphanumeric()) {
            word.push(next);
        }
        match &*word {
            "true" => Ok(NodeValue::Boolean(true)),
            "false" => Ok(NodeValue::Boolean(false)),
            "null" => Ok(NodeValue::Other("null")),
            _ => Err(Mistake::new(at, format!("expected a value, found {}", quoted(&word)))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(node: &Node) -> serde_json::Value {
        match &node.value {
            NodeValue::Text(text) => text.clone().into(),
            NodeValue::Integer(number) => (*number).into(),
            NodeValue::Boolean(value) => (*value).into(),
            NodeValue::List(nodes) => nodes.iter().map(plain).collect(),
            NodeValue::Table(members) => members
                .iter()
                .map(|member| (member.name.clone(), plain(&member.node)))
                .collect(),
            NodeValue::Other(_) => serde_json::Value::Null,
        }
    }

    #[test]
    fn values_have_positions() {
        let node = read("{\"a\": [1,\n  \"\u{e9}\u{1f980}\", true],\n \"b\":{} }").unwrap();
        let NodeValue::Table(members) = &node.value else {
            panic!("not a table")
        };
        let NodeValue::List(list) = &members[0].node.value else {
            panic!("not a list")
        };
        let at = |at: Position| (at.line, at.column);
        assert_eq!(
            (at(node.at), at(members[0].at), at(members[0].node.at)),
            ((1, 1), (1, 2), (1, 7))
        );
        assert_eq!(
            list.iter().map(|node| at(node.at)).collect::<Vec<_>>(),
            [(1, 8), (2, 3), (2, 9)]
        );
        assert_eq!((at(members[1].at), at(members[1].node.at)), ((3, 2), (3, 6)));
    }

    #[test]
    fn mistakes_have_positions() {
        let deep = format!("{}1{}", "[".repeat(16), "]".repeat(16));
        for (text, expected) in [
            ("", "line 1, column 1: expected a value, found the end of the document"),
            ("{\n \"a\" 1}", "line 2, column 6: expected ':', found '1'"),
            (
                "{\"a\":1,}",
                "line 1, column 8: expected the name of a member, found '}'",
            ),
            (
                "{\"a\":1",
                "line 1, column 7: expected ',' or '}', found the end of the document",
            ),
            ("[1 2]", "line 1, column 4: expected ',' or ']', found '2'"),
            ("[1,]", "line 1, column 4: expected a value, found ']'"),
            ("1 2", "line 1, column 3: expected the end of the document, found '2'"),
            ("[\"a", "line 1, column 2: the text does not end"),
            (
                "[\"a\nb\"]",
                "line 1, column 4: a control character in a text has to be escaped",
            ),
            (r#"["\x"]"#, "line 1, column 3: not an escape of JSON"),
            (r#"["\u12g4"]"#, "line 1, column 3: not an escape of JSON"),
            (r#"["\ud800"]"#, "line 1, column 3: not an escape of JSON"),
            (r#"["\udc00"]"#, "line 1, column 3: not an escape of JSON"),
            (r#"["\ud800\u0041"]"#, "line 1, column 3: not an escape of JSON"),
            ("nul", "line 1, column 1: expected a value, found \"nul\""),
            ("01", "line 1, column 1: not a number: \"01\""),
            ("-", "line 1, column 1: not a number: \"-\""),
            ("'a'", "line 1, column 1: expected a value, found '\\''"),
            (&deep, "line 1, column 17: more than 16 levels of values"),
            (
                "{\"a\":1,\n\"a\":2}",
                "line 2, column 1: the table has the member \"a\" twice",
            ),
            (
                "{\"a\":{\"\\u0062\":1,\"b\":2}}",
                "line 1, column 18: the table has the member \"b\" twice",
            ),
        ] {
            let mistakes = read(text).unwrap_err();
            let texts: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            assert_eq!(texts, [expected], "{text:?}");
        }
        let both = read("{\"a\":1,\"a\":2,").unwrap_err();
        assert_eq!(both.len(), 2, "reading goes on after a name that is there twice");
    }

    proptest! {
        /// What this reader accepts, `serde_json` reads as the same value.
        #[test]
        fn values_are_those_of_another_reader(text in r#"[\[\]{}",:a\\u0-9 .e-]{0,12}|\{("a"|"b"):(\[1,"[a-z]{0,2}"\]|-?[0-9]{1,3}|true|\{\}),?"c":[0-9"]{1,3}\}"#) {
            let other = serde_json::from_str::<serde_json::Value>(&text);
            match read(&text) {
                Ok(node) if !format!("{node:?}").contains("Other") => prop_assert_eq!(plain(&node), other.unwrap()),
                Ok(_) => {}
                Err(mistakes) => prop_assert!(
                    other.is_err() || mistakes.iter().all(|mistake| mistake.message.contains("twice")), "{}", text
                ),
            }
        }

        /// Every text of `serde_json` is read as the value that it was written from.
        #[test]
        fn any_text_is_read_back(value in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
            let node = read(&serde_json::to_string(&value).unwrap()).unwrap();
            prop_assert_eq!(node.value, NodeValue::Text(value));
        }
    }
}
