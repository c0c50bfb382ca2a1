//! Reads expressions, conditions and rules as users write them, without quoting and named ACLs.

use super::*;

/// Names known while expressions are read.
#[derive(Default)]
pub struct Names {
    pub tables: Vec<String>,
    pub proxies: Vec<String>,
    pub vars: std::cell::RefCell<Vec<String>>,
    /// Default of `src_*` and `table_*`.
    pub own_table: Option<TableId>,
}

impl Names {
    pub fn of(world: &World) -> Names {
        Names {
            tables: world.tables.iter().map(|t| t.spec().name.clone()).collect(),
            proxies: world.proxies.iter().map(|p| p.name.clone()).collect(),
            ..Names::default()
        }
    }

    fn table(&self, name: &str) -> TableId {
        let at = self.tables.iter().position(|t| t == name);
        TableId(at.unwrap_or_else(|| panic!("table {name}")) as u16)
    }

    pub fn var(&self, text: &str) -> VarRef {
        let (scope, name) = text.split_once('.').expect("scope.name");
        let mut vars = self.vars.borrow_mut();
        let at = vars.iter().position(|v| v == name).unwrap_or_else(|| {
            vars.push(name.to_string());
            vars.len() - 1
        });
        VarRef {
            scope: Scope::by_name(scope).expect("scope"),
            name: at as u16,
        }
    }

    fn arg(&self, kind: ArgKind, text: &str) -> Option<Arg> {
        if text.is_empty() && !matches!(kind, ArgKind::Str) {
            return None;
        }
        Some(match kind {
            ArgKind::Str | ArgKind::Regex => Arg::Str(text.as_bytes().to_vec()),
            ArgKind::Int | ArgKind::Time => Arg::Int(text.parse().expect(text)),
            ArgKind::IntOrVar => match text.parse() {
                Ok(i) => Arg::Int(i),
                Err(_) => Arg::Var(self.var(text)),
            },
            ArgKind::Bool => Arg::Bool(matches!(text, "1" | "true")),
            ArgKind::Var => Arg::Var(self.var(text)),
            ArgKind::Table => Arg::Table(self.table(text)),
            ArgKind::Frontend | ArgKind::Backend => {
                let at = self.proxies.iter().position(|p| p == text).expect("proxy");
                Arg::Proxy(ProxyId(at as u16))
            }
            ArgKind::Server => Arg::Server(ProxyId(0), text.parse().expect("server index")),
            ArgKind::Ipv4 | ArgKind::Ipv6 => Arg::Ip(text.parse().expect(text)),
            ArgKind::Ipv4Mask => Arg::Ip(match text.parse::<u32>() {
                Ok(len) => IpAddr::V4(u32::MAX.checked_shl(32 - len).unwrap_or(0).into()),
                Err(_) => text.parse().expect(text),
            }),
            ArgKind::Ipv6Mask => Arg::Ip(match text.parse::<u32>() {
                Ok(len) => IpAddr::V6(u128::MAX.checked_shl(128 - len).unwrap_or(0).into()),
                Err(_) => text.parse().expect(text),
            }),
            ArgKind::Env => Arg::Env(None),
        })
    }

    fn args(&self, kinds: &[ArgKind], text: &str) -> Vec<Option<Arg>> {
        if text.is_empty() {
            return Vec::new();
        }
        text.split(',')
            .enumerate()
            .map(|(i, t)| self.arg(kinds[i], t))
            .collect()
    }

    /// `fetch(args),converter(args)…`
    pub fn expr(&self, text: &str) -> Expr {
        self.expr_and_match(text).0
    }

    fn expr_and_match(&self, text: &str) -> (Expr, Option<MatchMethod>) {
        let mut words = top_level(text).into_iter();
        let (name, args) = call(words.next().expect("a fetch"));
        let info = registry::fetch(name).unwrap_or_else(|| panic!("fetch {name}"));
        let args = self.args(info.args, args);
        let fetch = info.build(&args, self.own_table).expect(text);
        let (mut output, mut method) = (info.output, info.acl_match);
        let mut converters = Vec::new();
        for word in words {
            let (name, args) = call(word);
            let info = registry::converter(name).unwrap_or_else(|| panic!("converter {name}"));
            let args = self.args(info.args, args);
            converters.push(info.build(&args, self.own_table).expect(text));
            if info.output != SampleType::Any {
                output = info.output;
            }
            method = None;
        }
        let expr = Expr {
            fetch,
            converters: converters.into(),
            output,
            text: text.to_string(),
        };
        (expr, method)
    }

    /// `CRITERION [-i] [-m METHOD] [OPERATOR] VALUE…`
    pub fn acl(&self, text: &str) -> AclLine {
        let mut words = text.split_whitespace().peekable();
        let (expr, mut method) = self.expr_and_match(words.next().expect("a criterion"));
        let mut ignore_case = false;
        while let Some(flag) = words.next_if(|w| w.starts_with('-') && w.len() == 2) {
            match flag {
                "-i" => ignore_case = true,
                "-m" => method = MatchMethod::by_name(words.next().expect("method")),
                _ => panic!("{flag}"),
            }
        }
        let method = method.unwrap_or_else(|| match expr.output {
            SampleType::Bool => MatchMethod::Bool,
            SampleType::Int => MatchMethod::Int,
            SampleType::Addr | SampleType::Ipv4 | SampleType::Ipv6 => MatchMethod::Ip,
            _ => panic!("{text} needs -m"),
        });
        let patterns = match method {
            MatchMethod::Found | MatchMethod::Bool => Patterns::None,
            MatchMethod::Int | MatchMethod::Len => ints(words),
            MatchMethod::Ip => Patterns::Ip(words.map(network).collect()),
            MatchMethod::Reg => Patterns::Regex(
                words
                    .map(|w| compile_regex(w, ignore_case).expect(w))
                    .collect(),
            ),
            MatchMethod::Bin => Patterns::Bytes(words.map(unhex).collect()),
            _ => Patterns::Bytes(words.map(|w| w.as_bytes().to_vec()).collect()),
        };
        AclLine::new(expr, method, patterns, ignore_case)
    }

    /// `if TERM && TERM || TERM`, a term being an ACL line with an optional leading `!`.
    pub fn cond(&self, text: &str) -> Cond {
        let (word, rest) = text.split_once(' ').expect("if|unless …");
        let any_of = rest
            .split("||")
            .map(|group| {
                group
                    .split("&&")
                    .map(|term| {
                        let term = term.trim();
                        let bare = term.strip_prefix('!').map(str::trim);
                        Term {
                            negated: bare.is_some(),
                            acl: Arc::new(Acl {
                                name: String::new(),
                                lines: vec![self.acl(bare.unwrap_or(term))],
                            }),
                        }
                    })
                    .collect()
            })
            .collect();
        Cond {
            any_of,
            negated: word == "unless",
        }
    }

    /// `ACTION … [if|unless …]`
    pub fn rule(&self, text: &str) -> Rule {
        let at = [" if ", " unless "].iter().find_map(|w| text.find(w));
        let (action, cond) = match at {
            Some(at) => (&text[..at], Some(self.cond(&text[at + 1..]))),
            None => (text, None),
        };
        let mut words = action.split_whitespace();
        let name = words.next().expect("action");
        let action = match name {
            "accept" | "allow" => Action::Allow,
            "reject" => Action::Reject,
            "silent-drop" => Action::SilentDrop { rst_ttl: 1 },
            "deny" => Action::Deny(Box::new(error(403))),
            "tarpit" => Action::Tarpit(Box::new(error(500))),
            "return" => Action::Return(Box::new(Reply {
                status: 200,
                body: ReplyBody::Empty,
                content_type: None,
                headers: Vec::new(),
            })),
            "set-header" => Action::SetHeader {
                name: words.next().expect("name").as_bytes().to_vec(),
                value: self.format(words.next().expect("value")),
            },
            "add-header" => Action::AddHeader {
                name: words.next().expect("name").as_bytes().to_vec(),
                value: self.format(words.next().expect("value")),
            },
            _ if name.starts_with("track-sc") => {
                let slot = name["track-sc".len()..].parse().expect("slot");
                let key = self.expr(words.next().expect("key"));
                let table = match words.next() {
                    Some("table") => self.table(words.next().expect("table")),
                    _ => self.own_table.expect("own table"),
                };
                Action::Track { slot, key, table }
            }
            _ if name.starts_with("sc-inc-gpc0(") => Action::IncGpc {
                index: 0,
                slot: call(name).1.parse().expect("slot"),
            },
            _ if name.starts_with("sc-inc-gpc(") => {
                let (index, slot) = call(name).1.split_once(',').expect("index,slot");
                Action::IncGpc {
                    index: index.parse().expect("index"),
                    slot: slot.parse().expect("slot"),
                }
            }
            _ if name.starts_with("sc-add-gpc(") => {
                let (index, slot) = call(name).1.split_once(',').expect("index,slot");
                Action::AddGpc {
                    index: index.parse().expect("index"),
                    slot: slot.parse().expect("slot"),
                    value: self.operand(words.next().expect("value")),
                }
            }
            _ if name.starts_with("sc-set-gpt0(") => Action::SetGpt {
                index: 0,
                slot: call(name).1.parse().expect("slot"),
                value: self.operand(words.next().expect("value")),
            },
            _ if name.starts_with("set-var(") => Action::SetVar {
                var: self.var(call(name).1),
                conditions: Default::default(),
                value: self.expr(words.next().expect("value")),
            },
            _ => panic!("action {name}"),
        };
        Rule::new(action, cond, (0, 0))
    }

    fn operand(&self, text: &str) -> remora_core::rule::action::Operand {
        use remora_core::rule::action::Operand;
        match text.parse() {
            Ok(n) => Operand::Int(n),
            Err(_) => Operand::Expr(self.expr(text)),
        }
    }

    pub fn rules(&self, lines: &[&str]) -> RuleSet {
        RuleSet {
            rules: lines.iter().map(|l| self.rule(l)).collect(),
        }
    }

    /// Text with `%[expr]` (brackets do not nest here).
    pub fn format(&self, text: &str) -> Format {
        let mut items = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("%[") {
            let (expr, after) = after.split_once(']').expect("]");
            if !before.is_empty() {
                items.push(FormatItem::Text(before.as_bytes().to_vec()));
            }
            items.push(FormatItem::Expr {
                expr: self.expr(expr),
                flags: FormatFlags::default(),
            });
            rest = after;
        }
        if !rest.is_empty() {
            items.push(FormatItem::Text(rest.as_bytes().to_vec()));
        }
        Format {
            items: items.into(),
        }
    }
}

fn error(status: u16) -> Reply {
    Reply {
        status,
        body: ReplyBody::ErrorPage,
        content_type: None,
        headers: Vec::new(),
    }
}

/// Splits at commas outside parentheses.
pub(super) fn top_level(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut words) = (0, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                words.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    words.push(&text[start..]);
    words
}

pub(super) fn call(word: &str) -> (&str, &str) {
    match word.split_once('(') {
        Some((name, args)) => (name, args.strip_suffix(')').expect(")")),
        None => (word, ""),
    }
}

fn ints<'t>(words: impl Iterator<Item = &'t str>) -> Patterns {
    let mut ranges = Vec::new();
    let mut operator = None;
    for word in words {
        if matches!(word, "eq" | "ge" | "gt" | "le" | "lt") {
            operator = Some(word);
            continue;
        }
        let bound = |t: &str, default: i64| {
            if t.is_empty() {
                default
            } else {
                t.parse().expect(t)
            }
        };
        ranges.push(match (operator, word.split_once(':')) {
            (None, Some((from, to))) => (bound(from, i64::MIN), bound(to, i64::MAX)),
            (Some("ge"), _) => (bound(word, 0), i64::MAX),
            (Some("gt"), _) => (bound(word, 0) + 1, i64::MAX),
            (Some("le"), _) => (i64::MIN, bound(word, 0)),
            (Some("lt"), _) => (i64::MIN, bound(word, 0) - 1),
            _ => (bound(word, 0), bound(word, 0)),
        });
    }
    Patterns::Int(ranges.into())
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect(text))
        .collect()
}

fn network(text: &str) -> (IpAddr, u8) {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len.parse().expect("length"))),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().expect(addr);
    let full = if addr.is_ipv4() { 32 } else { 128 };
    (addr, len.unwrap_or(full))
}
