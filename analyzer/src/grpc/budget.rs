//! The gRPC service `vouch.v1.Budgets`.

use super::{Service, unavailable};
use crate::standing::{self, Spent};
use tonic::{Request, Response, Status};
use vouch_proto::spending::Account;
use vouch_proto::v1;
use vouch_proto::v1::budgets_server::Budgets;
use vouch_service::budget::spent;

#[tonic::async_trait]
impl Budgets for Service {
    async fn get_budget(
        &self,
        _: Request<v1::GetBudgetRequest>,
    ) -> Result<Response<v1::GetBudgetResponse>, Status> {
        let shared = &self.shared;
        let now = shared.now();
        let census = shared.store.census(now).await.map_err(unavailable)?;
        let account = |account| spent(&shared.store.spending, account);
        let spent = Spent {
            rollbacks: account(Account::Rollbacks).await.map_err(unavailable)?,
            pages: account(Account::Pages).await.map_err(unavailable)?,
        };
        Ok(Response::new(standing::answer(&shared.settings.budget, &census, &spent, now)))
    }
}
