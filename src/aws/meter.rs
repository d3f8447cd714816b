//! Counts calls, keeps the servers' clock, and takes no reply that is none of theirs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_iam::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_iam::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_iam::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use crate::clock::ServerClock;
use crate::net::parse_date;

/// A reply larger than this is not one of AWS: a page of a hundred keys is a thirtieth of it.
const REPLY_LIMIT: usize = 1 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    iam: Arc<AtomicU32>,
    sts: Arc<AtomicU32>,
    clock: Arc<ServerClock>,
    host: Arc<Mutex<String>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Service {
    Iam,
    Sts,
}

/// The meter, as the client of one service carries it.
#[derive(Debug)]
pub(super) struct Probe {
    meter: Meter,
    service: Service,
}

impl Meter {
    pub(super) fn of(&self, service: Service) -> Probe {
        Probe { meter: self.clone(), service }
    }

    /// Calls sent so far, each try counted.
    pub(super) fn calls(&self, service: Service) -> u32 {
        self.counter(service).load(Ordering::Relaxed)
    }

    /// AWS's time. Whole seconds, as those of a key's date: never later than that of a key that is
    /// made now.
    pub(super) fn date(&self) -> Option<Timestamp> {
        let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
        self.clock.now().and_then(|now| now.round(whole).ok())
    }

    /// The host of the latest request.
    pub(super) fn host(&self) -> String {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn counter(&self, service: Service) -> &AtomicU32 {
        match service {
            Service::Iam => &self.iam,
            Service::Sts => &self.sts,
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for Probe {
    fn name(&self) -> &'static str {
        "Probe"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.meter.counter(self.service).fetch_add(1, Ordering::Relaxed);
        let host = context.request().uri().split('/').nth(2).unwrap_or_default().to_owned();
        *self.meter.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(parse_date) {
            self.meter.clock.note(date);
        }
        let body = std::mem::replace(context.response_mut().body_mut(), SdkBody::taken());
        *context.response_mut().body_mut() =
            SdkBody::from_body_1_x(Limited::new(body, REPLY_LIMIT));
        // IAM and STS say 200 where they have done something; the SDK would take any other 2xx for
        // it too.
        match context.response().status().as_u16() {
            status @ 201..=299 => Err(format!("HTTP {status} is no success of AWS").into()),
            _ => Ok(()),
        }
    }
}
