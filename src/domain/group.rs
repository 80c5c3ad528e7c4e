//! What goes to the gateway in one request.

/// The jobs of one request, or what is known of each: at least one. Each keeps its own attempt, its own verdict and its own
/// record; the quota counts the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    first: T,
    others: Vec<T>,
}

impl<T> Group<T> {
    /// Of one that goes by itself.
    pub fn of_one(one: T) -> Group<T> {
        Group {
            first: one,
            others: Vec::new(),
        }
    }

    /// Of what is left of a group; `None` when nothing is.
    pub fn of_rest(rest: Vec<T>) -> Option<Group<T>> {
        let mut rest = rest.into_iter();
        let first = rest.next()?;
        Some(Group {
            first,
            others: rest.collect(),
        })
    }

    /// The first of it.
    pub fn first(&self) -> &T {
        &self.first
    }

    /// How many there are: never none.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// All of it, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }
}

impl<T> IntoIterator for Group<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::iter::Once<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_group_keeps_its_order_and_nothing_is_no_group() {
        assert_eq!(Group::<u8>::of_rest(Vec::new()), None);
        assert_eq!(Group::of_rest(vec![7]), Some(Group::of_one(7)));
        let mut group = Group::of_rest(vec![1, 2, 3]).unwrap();
        assert_eq!((*group.first(), group.count()), (1, 3));
        group.iter_mut().for_each(|one| *one *= 2);
        assert_eq!(group.iter().copied().collect::<Vec<_>>(), [2, 4, 6]);
        assert_eq!(group.into_iter().collect::<Vec<_>>(), [2, 4, 6]);
    }
}
