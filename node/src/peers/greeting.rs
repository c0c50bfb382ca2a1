//! Greetings of nodes with thousands of tables do not fit into one message: they travel in parts. Here a greeting is cut, and put
//! together again; the core knows only whole ones.

use std::collections::VecDeque;

use prost::Message;
use remora_proto::peers::v1::{
    Hello, MoreAnswers, MoreTables, PushMessage, ReplyMessage, TableAnswer, TableDef, Welcome,
    push_message, reply_message,
};

/// A kind of message that may come in parts.
pub(super) trait Parts: Message + Sized + Default {
    /// One entry of the list that is cut.
    type Item: Message;
    /// The list, if this is a greeting that is whole, or its first part.
    fn items(&mut self) -> Option<(&mut Vec<Self::Item>, &mut bool)>;
    /// A part that is not the first.
    fn part(items: Vec<Self::Item>, more: bool) -> Self;
    /// The contents of such a part; the message itself if it is something else.
    fn into_part(self) -> Result<(Vec<Self::Item>, bool), Self>;
}

impl Parts for PushMessage {
    type Item = TableDef;
    fn items(&mut self) -> Option<(&mut Vec<TableDef>, &mut bool)> {
        match &mut self.kind {
            Some(push_message::Kind::Hello(Hello { tables, more, .. })) => Some((tables, more)),
            _ => None,
        }
    }
    fn part(tables: Vec<TableDef>, more: bool) -> PushMessage {
        let part = MoreTables { tables, more };
        PushMessage {
            kind: Some(push_message::Kind::MoreTables(part)),
        }
    }
    fn into_part(self) -> Result<(Vec<TableDef>, bool), PushMessage> {
        match self.kind {
            Some(push_message::Kind::MoreTables(part)) => Ok((part.tables, part.more)),
            kind => Err(PushMessage { kind }),
        }
    }
}

impl Parts for ReplyMessage {
    type Item = TableAnswer;
    fn items(&mut self) -> Option<(&mut Vec<TableAnswer>, &mut bool)> {
        match &mut self.kind {
            Some(reply_message::Kind::Welcome(Welcome { tables, more, .. })) => {
                Some((tables, more))
            }
            _ => None,
        }
    }
    fn part(tables: Vec<TableAnswer>, more: bool) -> ReplyMessage {
        let part = MoreAnswers { tables, more };
        ReplyMessage {
            kind: Some(reply_message::Kind::MoreAnswers(part)),
        }
    }
    fn into_part(self) -> Result<(Vec<TableAnswer>, bool), ReplyMessage> {
        match self.kind {
            Some(reply_message::Kind::MoreAnswers(part)) => Ok((part.tables, part.more)),
            kind => Err(ReplyMessage { kind }),
        }
    }
}

/// Cuts a greeting that is too long: the first part is returned, the others are added to `rest`. Anything else is returned as it
/// is.
pub(super) fn cut<M: Parts>(mut message: M, rest: &mut VecDeque<M>) -> M {
    let Some((items, more)) = message.items() else {
        return message;
    };
    let mut parts: Vec<Vec<M::Item>> = Vec::new();
    let mut bytes = 0;
    for item in std::mem::take(items) {
        let size = item.encoded_len() + ITEM_BYTES;
        match parts.last_mut() {
            Some(part) if bytes + size <= PART_BYTES => part.push(item),
            _ => {
                parts.push(vec![item]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    let mut parts = parts.into_iter().peekable();
    *items = parts.next().unwrap_or_default();
    *more = parts.peek().is_some();
    while let Some(part) = parts.next() {
        rest.push_back(M::part(part, parts.peek().is_some()));
    }
    message
}

/// Puts greetings of one stream together.
#[derive(Debug, Default)]
pub(super) struct Joiner<M> {
    /// What has come of a greeting, and its size.
    begun: Option<(M, usize)>,
}

/// What became of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Joined<M> {
    /// Here it is.
    Whole(M),
    /// More is to come.
    Partial,
    /// It cannot be, and why.
    Wrong(&'static str),
}

impl<M: Parts> Joiner<M> {
    pub(super) fn take(&mut self, mut message: M) -> Joined<M> {
        let size = message.encoded_len();
        match self.begun.take() {
            None => match message.items() {
                Some((_, more)) if *more => {
                    self.begun = Some((message, size));
                    Joined::Partial
                }
                _ => Joined::Whole(message),
            },
            Some((mut greeting, before)) => {
                let Ok((more_items, is_more)) = message.into_part() else {
                    return Joined::Wrong("a greeting breaks off");
                };
                if before + size > GREETING_BYTES_MAX {
                    return Joined::Wrong("a greeting of too many tables");
                }
                if let Some((items, more)) = greeting.items() {
                    items.extend(more_items);
                    *more = false;
                }
                if is_more {
                    self.begun = Some((greeting, before + size));
                    return Joined::Partial;
                }
                Joined::Whole(greeting)
            }
        }
    }
}

/// A part is not longer than this, beside what greetings hold that is not cut; a single table fits.
const PART_BYTES: usize = 256 << 10;
/// What an entry costs in addition: a tag and a length.
const ITEM_BYTES: usize = 6;
/// A whole greeting. Twice what 32,768 tables with names of 60 letters and ten columns need.
const GREETING_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(tables: usize) -> PushMessage {
        let table = |number| TableDef {
            name: format!("a table with a name that is not short, number {number}"),
            ..TableDef::default()
        };
        let hello = Hello {
            node: "a".into(),
            tables: (0..tables).map(table).collect(),
            ..Hello::default()
        };
        PushMessage {
            kind: Some(push_message::Kind::Hello(hello)),
        }
    }

    #[test]
    fn greetings_are_cut_and_joined() {
        for (tables, expected) in [(0, 1), (1, 1), (4_000, 1), (6_000, 2), (32_000, 8)] {
            let mut rest = VecDeque::new();
            let first = cut(hello(tables), &mut rest);
            rest.push_front(first);
            assert_eq!(rest.len(), expected, "{tables}");
            let mut joiner = Joiner::default();
            let mut whole = None;
            for (number, part) in rest.into_iter().enumerate() {
                assert!(part.encoded_len() <= PART_BYTES + 100);
                match joiner.take(part) {
                    Joined::Whole(message) => whole = Some(message),
                    joined => {
                        assert_eq!(joined, Joined::Partial);
                        assert!(number + 1 < expected);
                    }
                }
            }
            assert_eq!(whole, Some(hello(tables)), "{tables}");
        }
    }

    #[test]
    fn what_is_no_part_breaks_a_greeting() {
        let mut rest = VecDeque::new();
        let first = cut(hello(6_000), &mut rest);
        let mut joiner = Joiner::default();
        assert_eq!(joiner.take(first.clone()), Joined::Partial);
        assert!(matches!(joiner.take(first), Joined::Wrong(_)));
        // Nobody need keep what never ends.
        let table = TableDef {
            name: "x".repeat(1 << 20),
            ..TableDef::default()
        };
        let part = |more| PushMessage::part(vec![table.clone()], more);
        let mut joiner = Joiner::default();
        let mut first = hello(1);
        if let Some((_, more)) = first.items() {
            *more = true;
        }
        let mut joined = joiner.take(first);
        let mut parts = 0;
        while joined == Joined::Partial {
            joined = joiner.take(part(true));
            parts += 1;
            assert!(parts < 100);
        }
        assert!(matches!(joined, Joined::Wrong(_)));
    }
}
