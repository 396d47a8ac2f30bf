//! /proto says what the wire says: every service, method, message, field number, type and label, held against tables of
//! what the other implementations speak (tests/wire/*.txt). A slip in /proto cannot land.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto,
};

const TABLES: [&str; 3] = [
    include_str!("wire/csi.txt"),
    include_str!("wire/spire.txt"),
    include_str!("wire/workload.txt"),
];

/// An rpc, or a message or enum with its fields or values.
type Wire = BTreeMap<String, Vec<String>>;

#[test]
fn every_number_is_the_wires() {
    let (expected, actual) = (tables(), rendered(&descriptors()));
    assert_eq!(differences(&expected, &actual), Vec::<String>::new());
    assert!(expected.len() > 250, "the tables are whole");
}

/// What goes beyond the standard is a service of its own.
#[test]
fn e_10_p_02_the_workload_api_has_the_standards_methods_alone() {
    let files = descriptors().file;
    let services = files.iter().flat_map(|file| &file.service);
    let api: Vec<_> = services
        .filter(|service| service.name() == "SpiffeWorkloadAPI")
        .collect();
    assert_eq!(api.len(), 1);
    let names: Vec<&str> = api[0].method.iter().map(|one| one.name()).collect();
    assert_eq!(
        names,
        [
            "FetchX509SVID",
            "FetchX509Bundles",
            "FetchJWTSVID",
            "FetchJWTBundles",
            "ValidateJWTSVID",
            "FetchWITSVID",
            "FetchWITBundles",
        ]
    );
}

#[test]
fn a_slip_is_noticed() {
    let mut slips = 0;
    let mut check = |what: &str, spoil: &dyn Fn(&mut FieldDescriptorProto)| {
        for file in descriptors().file {
            for place in places(&file) {
                let mut spoilt = file.clone();
                spoil(place.field(&mut spoilt));
                assert!(is_noticed(&file, spoilt), "another {what} of {place:?}");
                slips += 1;
            }
        }
    };
    check("number", &|field| field.number = Some(field.number() + 100));
    check("name", &|field| {
        field.name = Some(format!("{}x", field.name()))
    });
    check("label", &|field| {
        field.label = Some(match field.label() {
            Label::Repeated => Label::Optional.into(),
            _ => Label::Repeated.into(),
        });
    });
    check("type", &|field| {
        field.type_name = None;
        field.r#type = Some(match field.r#type() {
            Type::Int32 => Type::Int64.into(),
            _ => Type::Int32.into(),
        });
    });
    assert!(slips > 1000, "only {slips} tried");
}

#[test]
fn a_slip_in_a_method_is_noticed() {
    let check = |what: &str, spoil: &dyn Fn(&mut MethodDescriptorProto)| {
        for file in descriptors().file {
            for method in 0..file.service.first().map_or(0, |one| one.method.len()) {
                let mut spoilt = file.clone();
                spoil(&mut spoilt.service[0].method[method]);
                assert!(is_noticed(&file, spoilt), "another {what} of {method}");
            }
        }
    };
    check("request stream", &|method| {
        method.client_streaming = Some(!method.client_streaming());
    });
    check("response stream", &|method| {
        method.server_streaming = Some(!method.server_streaming());
    });
    check("name", &|method| {
        method.name = Some(format!("{}X", method.name()))
    });
    check("response", &|method| {
        method.output_type = method.input_type.clone()
    });
}

/// Whether the tables tell the spoilt file from the one it was.
fn is_noticed(pristine: &FileDescriptorProto, spoilt: FileDescriptorProto) -> bool {
    let render = |file| rendered(&FileDescriptorSet { file: vec![file] });
    let mut expected = tables();
    let own = render(pristine.clone());
    expected.retain(|heading, _| own.contains_key(heading));
    differences(&expected, &own).is_empty() && !differences(&expected, &render(spoilt)).is_empty()
}

fn descriptors() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    set.file.retain(|file| file.package() != "google.protobuf");
    set
}

fn tables() -> Wire {
    let mut wire = Wire::new();
    let mut heading = String::new();
    for line in TABLES.iter().flat_map(|table| table.lines()) {
        if line.starts_with('#') {
            continue;
        }
        match line.strip_prefix("  ") {
            Some(item) => wire.get_mut(&heading).unwrap().push(item.to_owned()),
            None => {
                heading = line.to_owned();
                assert_eq!(
                    wire.insert(heading.clone(), Vec::new()),
                    None,
                    "{line} twice"
                );
            }
        }
    }
    wire
}

fn differences(expected: &Wire, actual: &Wire) -> Vec<String> {
    let mut found = Vec::new();
    for (heading, items) in expected {
        match actual.get(heading) {
            None => found.push(format!("missing from /proto: {heading}")),
            Some(others) if others != items => {
                found.push(format!(
                    "{heading}: /proto has {others:?}, the wire {items:?}"
                ));
            }
            Some(_) => {}
        }
    }
    let foreign = actual
        .keys()
        .filter(|heading| !expected.contains_key(*heading));
    found.extend(foreign.map(|heading| format!("not on the wire: {heading}")));
    found
}

fn rendered(set: &FileDescriptorSet) -> Wire {
    let mut wire = Wire::new();
    for file in &set.file {
        for service in &file.service {
            let service_name = qualified(file.package(), service.name());
            for method in &service.method {
                wire.insert(render_method(&service_name, method), Vec::new());
            }
        }
        for message in &file.message_type {
            render_message(&mut wire, file.package(), message);
        }
        for of in &file.enum_type {
            render_enum(&mut wire, file.package(), of);
        }
    }
    wire
}

fn render_method(service: &str, method: &MethodDescriptorProto) -> String {
    let stream = |streaming: bool| if streaming { "stream " } else { "" };
    format!(
        "rpc {service}/{} {}{} -> {}{}",
        method.name(),
        stream(method.client_streaming()),
        bare(method.input_type()),
        stream(method.server_streaming()),
        bare(method.output_type()),
    )
}

fn render_message(wire: &mut Wire, scope: &str, message: &DescriptorProto) {
    let name = qualified(scope, message.name());
    let mut fields: Vec<_> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let fields = fields
        .into_iter()
        .map(|field| render_field(message, field))
        .collect();
    wire.insert(format!("message {name}"), fields);
    for nested in message.nested_type.iter().filter(|one| !is_map_entry(one)) {
        render_message(wire, &name, nested);
    }
    for nested in &message.enum_type {
        render_enum(wire, &name, nested);
    }
}

fn render_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let map_entry = message.nested_type.iter().find(|nested| {
        is_map_entry(nested) && field.type_name().ends_with(&format!(".{}", nested.name()))
    });
    let (label, kind) = match (map_entry, field.label()) {
        (Some(entry), Label::Repeated) => {
            let [key, value] = entry.field.as_slice() else {
                panic!("a map entry has a key and a value");
            };
            ("", format!("map<{},{}>", scalar(key), scalar(value)))
        }
        (_, Label::Repeated) => ("repeated ", scalar(field)),
        _ if field.proto3_optional() => ("optional ", scalar(field)),
        _ => ("", scalar(field)),
    };
    let oneof = match field.oneof_index {
        Some(index) if !field.proto3_optional() => {
            let index = usize::try_from(index).unwrap();
            format!(" oneof={}", message.oneof_decl[index].name())
        }
        _ => String::new(),
    };
    let deprecated = field.options.as_ref().is_some_and(|one| one.deprecated());
    let deprecated = if deprecated { " deprecated" } else { "" };
    format!(
        "{} {} {label}{kind}{oneof}{deprecated}",
        field.number(),
        field.name()
    )
}

fn render_enum(wire: &mut Wire, scope: &str, of: &EnumDescriptorProto) {
    let values = of
        .value
        .iter()
        .map(|value| format!("{} {}", value.number(), value.name()))
        .collect();
    wire.insert(format!("enum {}", qualified(scope, of.name())), values);
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => bare(field.type_name()).to_owned(),
        other => other
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|one| one.map_entry())
}

fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

fn bare(type_name: &str) -> &str {
    type_name.trim_start_matches('.')
}

/// Where a field stands in its file: message, the nested message if it is in one, field.
#[derive(Debug)]
struct Place(usize, Option<usize>, usize);

impl Place {
    fn field<'a>(&self, file: &'a mut FileDescriptorProto) -> &'a mut FieldDescriptorProto {
        let Self(message, nested, field) = *self;
        let message = &mut file.message_type[message];
        match nested {
            Some(nested) => &mut message.nested_type[nested].field[field],
            None => &mut message.field[field],
        }
    }
}

/// Every field of a file, without the made-up ones of map entries.
fn places(file: &FileDescriptorProto) -> Vec<Place> {
    let mut places = Vec::new();
    for (number, message) in file.message_type.iter().enumerate() {
        places.extend((0..message.field.len()).map(|field| Place(number, None, field)));
        let nested = message.nested_type.iter().enumerate();
        for (nested, inner) in nested.filter(|(_, inner)| !is_map_entry(inner)) {
            let fields = 0..inner.field.len();
            places.extend(fields.map(|field| Place(number, Some(nested), field)));
        }
    }
    places
}
