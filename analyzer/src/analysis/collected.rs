//! An analysis of what was collected: a service and its windows in, the verdict that a verification would reach.

use crate::judge::JudgeSettings;
use crate::record::{Opening, Patience, Record};
use crate::verification::{Step, Verification};
use std::time::Duration;
use vouch_proto::deployment::hosts;
use vouch_proto::{
    Deployment, Invalid, Name, SeriesBatch, Strategy, Templates, Timestamp, Verdict, VerificationTemplate,
    Window, v1,
};

/// A service and windows, and what was collected for them so far.
#[derive(Debug)]
pub struct Collected {
    verification: Verification,
    windows: Vec<Window>,
    heard: bool,
}

impl Collected {
    /// Reads the request.
    ///
    /// # Errors
    /// The fields that are wrong, all at once.
    pub fn open(request: v1::AnalyzeRequest, templates: &Templates, now: Timestamp) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let given = [
            ("metrics", !request.metrics.is_empty()),
            ("series", !request.series.is_empty()),
            ("resolution_seconds", request.resolution_seconds != 0),
        ];
        for (field, _) in given.into_iter().filter(|(_, is_set)| *is_set) {
            invalid.push(field, "is set; leave it out with `collected`, which takes it from the template");
        }
        let name = (!request.template.is_empty()).then_some(request.template.as_str());
        let template = invalid.check("", templates.get(name));
        let hosts = invalid.check("", hosts(request.hosts));
        let service = invalid.check("service", Name::new(request.service));
        let environment = invalid.check("environment", Name::new(request.environment));
        let version = invalid.check("", Name::new("unspecified"));
        let strategy = invalid.check("strategy", Strategy::from_wire(request.strategy));
        let window = request.verification.ok_or_else(|| Invalid::field("", "is missing; give a window"));
        let window = invalid.check("verification", window.and_then(Window::try_from));
        if let Some(window) = window.filter(|w| w.end() > now) {
            let message =
                format!("{} lies in the future; Start verifies what is still to come", window.end());
            invalid.push("verification.end", message);
        }
        let mut baseline = Vec::new();
        for (i, wire) in request.baseline.into_iter().enumerate() {
            baseline.extend(invalid.check(&format!("baseline[{i}]"), Window::try_from(wire)));
        }
        let (Some(template), Some(hosts), Some(service), Some(environment), Some(version)) =
            (template, hosts, service, environment, version)
        else {
            return Err(invalid);
        };
        let (Some(strategy), Some(window)) = (strategy, window) else { return Err(invalid) };
        invalid.into_result()?;
        let mut deployment = Deployment { hosts, ..Deployment::new(environment, service, version) };
        deployment.deployment_id = Some("analyze".to_owned());
        deployment.verification.strategy = Some(strategy);
        deployment.verification.baseline = baseline;
        Ok(Self::of(deployment, template, window, now))
    }

    fn of(
        mut deployment: Deployment,
        template: &VerificationTemplate,
        window: Window,
        now: Timestamp,
    ) -> Self {
        let opening = Opening {
            verification_id: "analyze",
            template,
            now,
            series_from: now,
            traceparent: None,
            levels: None,
            left_out: Vec::new(),
        };
        let patience = Patience { deadline_grace: Duration::ZERO, wait_for_traffic: Duration::ZERO };
        let minutes = u64::try_from(window.minutes()).unwrap_or(0);
        deployment.verification.duration = Some(Duration::from_secs(minutes * 60));
        let record = Record::open(&deployment, Some(window.start()), opening, patience);
        let mut windows = record.baseline.clone();
        windows.extend(record.verification);
        let verification = Verification::new(record, template.clone(), JudgeSettings::default());
        Self { verification, windows, heard: false }
    }

    /// Environment and service.
    #[must_use]
    pub const fn subject(&self) -> (&Name, &Name) {
        let deployment = &self.verification.record().deployment;
        (&deployment.environment, &deployment.service)
    }

    /// Takes in a batch of the service; one of other windows is left out.
    pub fn on_batch(&mut self, batch: &SeriesBatch) {
        let touches = |w: &Window| batch.window.start() < w.end() && w.start() < batch.window.end();
        if self.windows.iter().any(touches) {
            self.heard = true;
            self.verification.on_batch(batch);
        }
    }

    /// Whether anything was collected for these windows.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.heard
    }

    /// What to say where nothing was.
    #[must_use]
    pub fn nothing(&self) -> String {
        let (environment, service) = self.subject();
        format!(
            "nothing was collected for `{service}` in `{environment}` in these windows; {}",
            self.remedy()
        )
    }

    /// The windows that were not collected as a whole, in words. Half of a window is no ground for a verdict.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let missing = self.verification.not_collected();
        if missing.is_empty() {
            return None;
        }
        let windows: Vec<String> = missing.iter().map(|w| format!("{} to {}", w.start(), w.end())).collect();
        Some(format!("not collected as a whole: {}; {}", windows.join(", "), self.remedy()))
    }

    fn remedy(&self) -> String {
        let start = self.verification.record().traffic_at.map_or_else(String::new, |t| format!(" {t}"));
        format!(
            "series are kept for 3 days, and Start with `started_at`{start} collects and judges older ones"
        )
    }

    /// The verdict.
    ///
    /// # Errors
    /// Where there is none, which cannot be after `missing` found nothing missing.
    pub fn judge(mut self, now: Timestamp) -> Result<Verdict, Invalid> {
        match self.verification.step(now) {
            Step::Final(verdict) => Ok(*verdict),
            Step::Wait | Step::Progress(_) | Step::Revised(_) | Step::Settled => {
                Err(Invalid::field("verification", "cannot be decided; give a longer window"))
            }
        }
    }
}
