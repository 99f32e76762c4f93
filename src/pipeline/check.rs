//! Types and shapes along the graph, as far as they are known.

use super::error::Error;
use super::graph::{Graph, Member, Step, Work, listed};
use super::port::{Guess, Port};
use super::settle::mask;

/// What a model takes and gives.
type Signature = (Vec<Port>, Vec<Port>);

/// Names and what is known of them; None is a model that nobody knows yet.
type Given = Option<Vec<(String, Guess)>>;

impl Graph {
    /// Holds what every step reads against what it takes. `signature` knows the models; one that it does not know is
    /// believed.
    pub fn check(&self, signature: &dyn Fn(&Member) -> Option<Signature>) -> Result<(), Error> {
        let mut given: Vec<Given> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let outputs = self.settle(step, &given, signature).map_err(|problem| Error::step(&step.name, problem))?;
            given.push(outputs);
        }
        for (source, port) in self.results.iter().zip(&self.outputs) {
            let wrong = |problem: String| Error::Graph(format!("output {}: {problem}", port.name));
            let guess = self.guess(source, &given).map_err(wrong)?;
            if !guess.agrees(&Guess::from(port)) {
                return Err(wrong(format!("the manifest declares {}, the steps give {guess}", Guess::from(port))));
            }
        }
        Ok(())
    }

    fn settle(
        &self,
        step: &Step,
        given: &[Given],
        signature: &dyn Fn(&Member) -> Option<Signature>,
    ) -> Result<Given, String> {
        let inputs = step.inputs.iter().map(|source| self.guess(source, given)).collect::<Result<Vec<_>, _>>()?;
        match &step.work {
            Work::Op(op) => {
                let outputs = op.settle(&inputs)?;
                Ok(Some(op.gives().iter().map(|name| (*name).to_owned()).zip(outputs).collect()))
            }
            Work::Model(member) => {
                if let Some(rows) = &member.rows {
                    mask(&self.guess(rows, given)?).map_err(|problem| format!("rows: {problem}"))?;
                }
                let Some((takes, gives)) = signature(member) else { return Ok(None) };
                taken(member, &inputs, &takes)?;
                let outputs =
                    gives.iter().map(|port| (port.name.clone(), self.given(member, port))).collect::<Vec<_>>();
                for (name, source) in &member.otherwise {
                    let Some((_, output)) = outputs.iter().find(|(known, _)| known == name) else {
                        let known = listed(gives.iter().map(|port| port.name.as_str()));
                        return Err(format!("otherwise: {} gives no {name:?}; it gives {known}", member.title()));
                    };
                    let other = self.guess(source, given)?;
                    if !output.agrees(&other) {
                        return Err(format!(
                            "otherwise: {name} is {output} of {}, and {other} otherwise",
                            member.title()
                        ));
                    }
                }
                Ok(Some(outputs))
            }
        }
    }

    /// What an output of a model is once its rows are chosen and put together.
    fn given(&self, member: &Member, port: &Port) -> Guess {
        let guess = Guess::from(port);
        if member.rows.is_some() || member.each { guess.with_free_rows() } else { guess }
    }
}

/// Every input of the model is filled, and with what it takes.
fn taken(member: &Member, inputs: &[Guess], takes: &[Port]) -> Result<(), String> {
    let title = member.title();
    let known = || listed(takes.iter().map(|port| port.name.as_str()));
    if let Some(odd) = member.inputs.iter().find(|name| !takes.iter().any(|port| port.name == **name)) {
        return Err(format!("model {title} has no input {odd:?}; it has {}", known()));
    }
    for port in takes {
        let Some(at) = member.inputs.iter().position(|name| *name == port.name) else {
            return Err(format!("model {title} needs the input {}; it has {}", port.name, known()));
        };
        let mut given = inputs[at].clone();
        if member.each {
            given = given.with_rows(1);
        } else if member.rows.is_some() {
            given = given.with_free_rows();
        }
        let wanted = Guess::from(port);
        if !given.agrees(&wanted) {
            return Err(format!("input {} of model {title} is {wanted}, given {given}", port.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Datatype;

    fn port(name: &str, datatype: Datatype, shape: &[i64]) -> Port {
        Port { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn floats(name: &str, shape: &[i64]) -> Port {
        port(name, Datatype::Fp32, shape)
    }

    /// Takes x of [-1, 4] and gives p of [-1, 3] and n of [-1]; a model `one` takes and gives single rows.
    fn signature(member: &Member) -> Option<Signature> {
        match member.name() {
            "small" | "large" => {
                Some((vec![floats("x", &[-1, 4])], vec![floats("p", &[-1, 3]), port("n", Datatype::Int64, &[-1])]))
            }
            "one" => Some((vec![floats("x", &[1, 4])], vec![floats("p", &[1, 3])])),
            _ => None,
        }
    }

    fn graph(text: &str) -> Result<Graph, String> {
        let made = Graph::parse(text, &[floats("x", &[-1, 4])], &[floats("p", &[-1, 3])]);
        let graph = made.map_err(|error| error.to_string())?;
        graph.check(&signature).map_err(|error| error.to_string())?;
        Ok(graph)
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.steps.iter().map(|step| step.name.as_str()).collect()
    }

    const CASCADE: &str = r#"
        [[step]]
        name = "second"
        model = "large"
        input = { x = "x" }
        rows = "doubt"
        otherwise = { p = "first.p" }
        [[step]]
        name = "doubt"
        step = "unsure"
        input = "first.p"
        measure = "margin"
        below = 0.5
        [[step]]
        name = "first"
        model = "small"
        input = { x = "x" }
        [output]
        p = "second.p"
    "#;

    #[test]
    fn steps_stand_behind_what_they_wait_for_however_they_are_written() {
        let graph = graph(CASCADE).unwrap();
        assert_eq!(names(&graph), ["first", "doubt", "second"]);
        let member = graph.steps[2].member().unwrap();
        assert_eq!((member.wanted.as_slice(), member.name()), (&["p".to_owned()][..], "large"));
        assert_eq!(graph.steps[2].after().into_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_is_wrong_names_the_step_and_what_would_be_right() {
        let small = |more: &str| {
            format!("[[step]]\nname = \"a\"\nmodel = \"small\"\ninput = {{ x = \"x\" }}\n{more}[output]\np = \"a.p\"\n")
        };
        let change = |from: &str, to: &str| {
            assert!(CASCADE.contains(from), "{from}");
            CASCADE.replacen(from, to, 1)
        };
        for (text, says) in [
            ("[[step]\n".to_owned(), "line 1, column"),
            ("[[step]]\n".to_owned(), "step 1 needs a `name`"),
            ("[output]\np = \"x\"".to_owned(), "at least one [[step]]"),
            ("steps = 1".to_owned(), "unknown field `steps`"),
            (small("[[step]]\nname = \"a\"\nmodel = \"large\"\n"), "step a: its name stands twice"),
            (small("[[step]]\nname = \"x\"\nmodel = \"large\"\n"), "step x: an input of the pipeline has this name"),
            (small("[[step]]\nname = \"a.b\"\nmodel = \"large\"\n"), "a point leads to its outputs"),
            (small("[[step]]\nname = \"b\"\ninput = \"x\"\n"), "step b: it needs either `model`"),
            (small("[[step]]\nname = \"b\"\nmodel = \"large\"\ninput = \"x\"\n"), "step b: `input` is a table"),
            (
                small("[[step]]\nname = \"b\"\nmodel = \"large\"\ninput = { x = \"a.p\" }\n"),
                "step b: nobody reads what it gives",
            ),
            (small("version = \"new\"\n"), "step a: invalid type"),
            (small("wait = 7\n"), "step a: unknown field `wait`"),
            (small("otherwise = { p = \"x\" }\n"), "it needs `rows`"),
            (
                small("").replace("a.p", "b.p"),
                "output p: \"b.p\" is neither an input of the pipeline (x) nor a step (a)",
            ),
            (small("").replace("p = \"a.p\"", "q = \"a.p\""), "output p is made by no step"),
            (small("").replace("p = \"a.p\"", "p = \"a.p\"\nq = \"a.p\""), "[output] has q"),
            (small("").replace("a.p", "a.q"), "output p: a gives no \"q\"; it gives p, n"),
            (small("").replace("a.p", "a"), "output p: a gives p, n: write which"),
            (small("").replace("a.p", "a.n"), "the manifest declares FP32 [-1, 3], the steps give INT64 [-1]"),
            (small("").replace("x = \"x\"", "y = \"x\""), "step a: model small has no input \"y\"; it has x"),
            (
                change("otherwise = { p = \"first.p\" }", "otherwise = { p = \"first.n\" }"),
                "otherwise: p is FP32 [-1, 3] of large, and INT64 [-1] otherwise",
            ),
            (change("otherwise = { p", "otherwise = { q"), "otherwise: large gives no \"q\""),
            (
                CASCADE
                    .replace("\"unsure\"", "\"sigmoid\"")
                    .replace("measure = \"margin\"", "")
                    .replace("below = 0.5", ""),
                "rows: a mask is BOOL [-1], given FP32 [-1, 3]",
            ),
            (change("input = \"first.p\"", "input = \"doubt\""), "steps wait for each other: doubt -> doubt"),
            (
                change("input = \"first.p\"", "input = \"second.p\""),
                "steps wait for each other: second -> doubt -> second",
            ),
            (change("below = 0.5", ""), "step doubt: a number in `below`"),
            (change("input = \"first.p\"", "input = [\"first.p\"]"), "step doubt: `input` is one name"),
            (format!("[limits]\ntensor_bytes_max = 0\n{}", small("")), "limits: each is 1 to"),
            ("# ".repeat(200_000), "at most 262144 bytes"),
        ] {
            let error = graph(&text).expect_err(&text);
            assert!(error.contains(says), "{text}\n{error}");
        }
    }

    #[test]
    fn an_input_that_nobody_reads_and_too_many_steps_are_refused() {
        let two = [floats("x", &[-1, 4]), floats("y", &[1])];
        let text = "[[step]]\nname = \"a\"\nmodel = \"small\"\ninput = { x = \"x\" }\n[output]\np = \"a.p\"\n";
        let error = Graph::parse(text, &two, &[floats("p", &[-1, 3])]).unwrap_err().to_string();
        assert_eq!(error, "input y is read by no step");
        let many: String =
            (0..65).map(|at| format!("[[step]]\nname = \"s{at}\"\nstep = \"sigmoid\"\ninput = \"x\"\n")).collect();
        assert!(graph(&many).unwrap_err().contains("at most 64 steps, this one has 65"));
    }

    #[test]
    fn a_model_of_single_rows_is_asked_about_each_where_that_is_said() {
        let text = CASCADE.replace("model = \"small\"", "model = \"one\"\n        each = true");
        assert_eq!(names(&graph(&text).unwrap()), ["first", "doubt", "second"]);
    }

    #[test]
    fn a_model_that_nobody_knows_yet_is_believed() {
        let text = CASCADE.replace("\"large\"", "\"new@prod\"");
        let graph = graph(&text).unwrap();
        assert_eq!(graph.steps[2].member().unwrap().name(), "new");
        let both = CASCADE.replace("model = \"large\"", "model = \"large@prod\"\nversion = 2");
        assert!(Graph::parse(&both, &[floats("x", &[-1, 4])], &[floats("p", &[-1, 3])]).is_err());
    }
}
