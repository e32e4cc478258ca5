//! JSON Schema (2020-12) of what the programs print and write, generated from the types.
//!
//! Built with the feature `schema` alone: for `docs/schema` and for the tests, not for the programs that are shipped.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::common::check::Check;

/// `$id` of a document is this and its name. A URN, because nothing is to be fetched.
const ID: &str = "urn:azaion:schema:";

/// The schema of one kind of file, or of one line of output.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its name: that of the file in `docs/schema`, without the extension.
    pub name: &'static str,
    /// The schema.
    pub schema: Schema,
}

impl Document {
    /// The schema of `T` as it is serialised. `what` says where the JSON is found, and what it is for.
    pub fn of<T: JsonSchema>(name: &'static str, title: &str, what: &str) -> Self {
        let mut schema = of::<T>();
        for (key, text) in [("$id", format!("{ID}{name}")), ("title", title.into()), ("description", what.into())] {
            schema.insert(key.to_owned(), text.into());
        }
        Self { name, schema }
    }

    /// The schema of a [`Check`] of a program that makes the checks `ids`.
    pub fn of_checks(name: &'static str, title: &str, what: &str, ids: &[&str]) -> Self {
        Self::of::<Check>(name, title, what).narrowed("id", "enum", json!(ids))
    }

    /// The same with a further keyword for one of the fields.
    #[must_use]
    pub fn narrowed(mut self, field: &str, keyword: &str, value: Value) -> Self {
        narrow(&mut self.schema, &format!("/properties/{field}"), keyword, value);
        self
    }

    /// The same for an object that has several forms, exactly one of which an object is of.
    #[must_use]
    pub fn of_forms(mut self, forms: &[Form<'_>]) -> Self {
        self.schema.insert("oneOf".to_owned(), forms.iter().map(Form::schema).collect());
        self
    }
}

/// Adds a keyword to the schema at a place (a JSON pointer) inside of another one.
pub fn narrow(schema: &mut Schema, place: &str, keyword: &str, value: Value) {
    if let Some(part) = schema.pointer_mut(place).and_then(Value::as_object_mut) {
        part.insert(keyword.to_owned(), value);
    }
}

/// One of several forms of an object.
#[derive(Clone, Debug, Default)]
pub struct Form<'a> {
    /// What the object says in this form.
    pub title: &'a str,
    /// A field that tells this form from the others, and the schema of its values there.
    pub discriminator: Option<(&'a str, Value)>,
    /// Fields that are there, besides those that all forms have.
    pub required: &'a [&'a str],
    /// Fields that are not there.
    pub absent: &'a [&'a str],
}

impl Form<'_> {
    fn schema(&self) -> Value {
        let absent = self.absent.iter().map(|field| ((*field).to_owned(), Value::Bool(false)));
        let discriminator = self.discriminator.iter().map(|(field, value)| ((*field).to_owned(), value.clone()));
        let properties: Map<String, Value> = absent.chain(discriminator).collect();
        let discriminator = self.discriminator.iter().map(|(field, _)| *field);
        let required: Vec<&str> = discriminator.chain(self.required.iter().copied()).collect();
        json!({ "title": self.title, "properties": properties, "required": required })
    }
}

/// The schema of `T` as it is serialised, complete in itself.
pub fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    for simplify in [portable, closed, never_null] {
        RecursiveTransform(simplify).transform(&mut schema);
    }
    schema
}

/// Drops the formats of Rust's numbers, which JSON Schema does not define and strict readers refuse; the bounds stay. Drops what a
/// field that is absent means to our own readers.
fn portable(schema: &mut Schema) {
    schema.remove("default");
    let is_of_rust = |format: &Value| format.as_str().is_some_and(|format| format.starts_with("uint"));
    if schema.get("format").is_some_and(is_of_rust) {
        schema.remove("format");
    }
}

/// Closes an object, so that also a field that is not described is noticed.
fn closed(schema: &mut Schema) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// Forbids null in a field that need not be there: the programs leave it out instead.
fn never_null(schema: &mut Schema) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|other| other == name));
    let Some(Value::Object(fields)) = schema.get_mut("properties") else { return };
    for (_, field) in fields.iter_mut().filter(|(name, _)| !is_required(name)) {
        without_null(field);
    }
}

fn without_null(field: &mut Value) {
    let Some(field) = field.as_object_mut() else { return };
    if let Some(Value::Array(types)) = field.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = &mut types[..] {
            let name = name.take();
            field.insert("type".to_owned(), name);
        }
    }
    // An optional value of a type with a schema of its own.
    if let Some(Value::Array(mut choices)) = field.remove("anyOf") {
        choices.retain(|choice| choice != &json!({ "type": "null" }));
        match &mut choices[..] {
            [Value::Object(only)] => {
                let description = field.remove("description");
                field.append(only);
                field.extend(description.map(|text| ("description".to_owned(), text)));
            }
            _ => {
                field.insert("anyOf".to_owned(), Value::Array(choices));
            }
        }
    }
}
