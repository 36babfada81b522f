//! What this server speaks, told to tools such as grpcurl and ghz: `grpc.reflection.v1` and `v1alpha`, which differ in
//! their names alone.
//!
//! Like `/api/v1/openapi.json` it is for everybody: it tells what is published with the sources. A stream of questions
//! is answered one by one, so a client may wait for an answer before it asks the next. Answers hold the file asked for and
//! not what it imports; clients ask for that by name. Only services that are answered are listed.

use std::{collections::HashMap, sync::LazyLock};

use bytes::Bytes;
use http::Response;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use tokio::sync::mpsc;
use zimcache_proto::{
    DESCRIPTORS, Message,
    reflection::{
        ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    status::GrpcCode,
    wire::{Field, fields},
};
use zimcache_telemetry::task;

use super::SERVICES;
use crate::{
    body::{Body, Upload},
    call::Call,
    grpc::{self, Budget, Messages, Outcome, Pieces, Status},
};

/// Number of the files in a `FileDescriptorSet`.
const FILE: u32 = 1;

/// Answers `ServerReflectionInfo`.
pub(super) async fn answer(call: Call<'_>) -> Outcome<Response<Body>> {
    let (sender, answers) = mpsc::channel(1);
    let budget = call.shared.messages.clone();
    task::spawn("reflection", converse(call.upload.take(), budget, sender));
    Ok(grpc::streamed(answers))
}

/// Answers every question until the client has no more, or went away.
async fn converse(mut upload: Upload, budget: Budget, answers: mpsc::Sender<Outcome<Pieces>>) {
    let mut questions = Messages::new(&mut upload, &budget);
    loop {
        let answer = match questions.next().await {
            Ok(Some(question)) => reply(question),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let is_last = answer.is_err();
        if answers.send(answer).await.is_err() || is_last {
            return;
        }
    }
}

fn reply(question: impl bytes::Buf) -> Outcome<Pieces> {
    let question = ServerReflectionRequest::decode(question)
        .map_err(|_| Status::invalid("the message does not decode"))?;
    let answer = FILES.look_up(question.message_request.as_ref());
    Ok(Pieces::of(&ServerReflectionResponse {
        valid_host: question.host.clone(),
        original_request: Some(question),
        message_response: Some(answer),
    }))
}

/// Every description, and what is where.
static FILES: LazyLock<Files> = LazyLock::new(|| Files::read(&Bytes::from_static(DESCRIPTORS)));

/// Descriptions, as they are encoded.
#[derive(Debug, Default)]
struct Files {
    by_name: HashMap<String, Bytes>,
    by_symbol: HashMap<String, Bytes>,
    services: Vec<String>,
}

impl Files {
    fn read(set: &Bytes) -> Files {
        let mut files = Files::default();
        for (_, field) in fields(set).flatten().filter(|(number, _)| *number == FILE) {
            if let Field::Bytes(encoded) = field
                && let Ok(file) = FileDescriptorProto::decode(encoded.clone())
            {
                files.add(&file, &encoded);
            }
        }
        files
    }

    fn add(&mut self, file: &FileDescriptorProto, encoded: &Bytes) {
        let package = file.package();
        self.by_name.insert(file.name().to_owned(), encoded.clone());
        for message in &file.message_type {
            self.add_message(package, message, encoded);
        }
        for one in &file.enum_type {
            self.add_enum(package, one, encoded);
        }
        for service in &file.service {
            let name = self.add_symbol(package, service.name(), encoded);
            for method in &service.method {
                self.add_symbol(&name, method.name(), encoded);
            }
            if SERVICES.contains(&&*name) {
                self.services.push(name);
            }
        }
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, encoded: &Bytes) {
        let name = self.add_symbol(scope, message.name(), encoded);
        for field in &message.field {
            self.add_symbol(&name, field.name(), encoded);
        }
        for nested in &message.nested_type {
            self.add_message(&name, nested, encoded);
        }
        for one in &message.enum_type {
            self.add_enum(&name, one, encoded);
        }
    }

    fn add_enum(&mut self, scope: &str, one: &EnumDescriptorProto, encoded: &Bytes) {
        let name = self.add_symbol(scope, one.name(), encoded);
        for value in &one.value {
            self.add_symbol(&name, value.name(), encoded);
        }
    }

    fn add_symbol(&mut self, scope: &str, name: &str, encoded: &Bytes) -> String {
        let name = format!("{scope}.{name}");
        self.by_symbol.insert(name.clone(), encoded.clone());
        name
    }

    fn look_up(&self, question: Option<&MessageRequest>) -> MessageResponse {
        match question {
            Some(MessageRequest::FileByFilename(name)) => file(self.by_name.get(name)),
            Some(MessageRequest::FileContainingSymbol(name)) => file(self.by_symbol.get(name)),
            Some(MessageRequest::FileContainingExtension(_)) => not_found("extension"),
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => self.extensions(name),
            Some(MessageRequest::ListServices(_)) => {
                let names = self.services.iter();
                let service = names.map(|name| ServiceResponse { name: name.clone() });
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: service.collect(),
                })
            }
            None => error(GrpcCode::InvalidArgument, "the message asks nothing"),
        }
    }

    /// None of our messages has any.
    fn extensions(&self, name: &str) -> MessageResponse {
        if !self.by_symbol.contains_key(name) {
            return not_found("message");
        }
        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
            base_type_name: name.to_owned(),
            extension_number: Vec::new(),
        })
    }
}

fn file(found: Option<&Bytes>) -> MessageResponse {
    let Some(encoded) = found else {
        return not_found("file");
    };
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: vec![encoded.clone()],
    })
}

fn not_found(what: &str) -> MessageResponse {
    let message = format!("this server describes no such {what}");
    error(GrpcCode::NotFound, message)
}

fn error(code: GrpcCode, message: impl Into<String>) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: code.number(),
        error_message: message.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_that_is_answered_is_described() {
        let undescribed = SERVICES.iter().filter(|name| {
            let is_alias = name.contains("v1alpha");
            !is_alias && !FILES.services.iter().any(|known| known == *name)
        });
        assert_eq!(undescribed.count(), 0);
        assert!(FILES.services.len() > 3, "{:?}", FILES.services);
    }

    #[test]
    fn every_import_can_be_asked_for() {
        for (name, encoded) in &FILES.by_name {
            let file = FileDescriptorProto::decode(encoded.clone()).unwrap();
            for import in &file.dependency {
                assert!(FILES.by_name.contains_key(import), "{name}: {import}");
            }
        }
    }
}
