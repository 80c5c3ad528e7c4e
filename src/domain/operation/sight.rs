//! What a person looks for at the gateway.

/// How a person sees at the gateway what became of a job, and says it in `apipay.resolve`: in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What stands for the number of what the job made, which a person names. None where it makes nothing: what it acts on is
    /// named in its params.
    pub id: Option<&'static str>,
    /// What is so if it was done.
    pub done: &'static str,
    /// What is so if it was not, said after that.
    pub not_done: &'static str,
    /// What the gateway has to show before it is sent again.
    pub before_again: &'static str,
    /// What a person does before they have it done by a new job. Empty where doing it twice does no harm.
    pub before_new: &'static str,
}

impl Sight {
    /// Of what makes an object that bears the name of its job.
    pub const fn made(id: &'static str, before_new: &'static str) -> Sight {
        Sight {
            id: Some(id),
            done: "it is there",
            not_done: "it is not there",
            before_again: "nothing alive with its name",
            before_new,
        }
    }
}
