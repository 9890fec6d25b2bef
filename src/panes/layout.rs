//! Where the panes stand on a terminal: a grid that covers it, paged if the guests are too many for its size.

/// The least that a console can be read in: its title, four lines, half the usual width.
pub const LEAST: Size = Size { width: 40, height: 5 };
/// A guest's terminal with its title and the line between panes: a pane that is larger gains little.
const ENOUGH: Size = Size { width: 81, height: 26 };
/// Columns that a kernel's time stamp takes from every line, so that few long lines say more than many short ones.
const STAMP: usize = 12;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A pane's place; the first row is its title's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First column.
    pub x: u16,
    /// First row.
    pub y: u16,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How many panes stand on a page, and in how many columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    area: Size,
    columns: usize,
    per_page: usize,
    panes: usize,
}

impl Layout {
    /// The most readable one; `None` if not even one pane fits. No panes are laid out as one would be.
    pub fn of(panes: usize, area: Size) -> Option<Self> {
        let most_columns = usize::from(area.width / LEAST.width);
        let most_rows = usize::from(area.height / LEAST.height);
        let per_page = panes.max(1).min(most_columns * most_rows);
        // The one that shows most of a guest's terminal; of equal ones the one with the fewest columns.
        let readable = |columns: usize| {
            let rows = per_page.div_ceil(columns);
            let width = (usize::from(area.width) / columns).min(usize::from(ENOUGH.width));
            let height = (usize::from(area.height) / rows).min(usize::from(ENOUGH.height));
            ((width - STAMP) * (height - 1), most_columns - columns)
        };
        let fits = |columns: &usize| per_page.div_ceil(*columns) <= most_rows;
        let columns =
            (1..=most_columns.min(per_page)).filter(fits).max_by_key(|columns| readable(*columns))?;
        Some(Self { area, columns, per_page, panes })
    }

    /// Pages that it takes; at least one.
    pub fn pages(&self) -> usize {
        self.panes.div_ceil(self.per_page).max(1)
    }

    /// The page that a pane stands on, counted from 0.
    pub fn page_of(&self, pane: usize) -> usize {
        pane / self.per_page
    }

    /// Panes of a page and their places, in order. The last row's share its width.
    pub fn page(&self, page: usize) -> Vec<(usize, Place)> {
        let first = page * self.per_page;
        let count = self.panes.saturating_sub(first).min(self.per_page);
        // All pages have the same rows, so that nothing moves when the page is turned.
        let rows = self.per_page.div_ceil(self.columns);
        let used_rows = count.div_ceil(self.columns);
        let mut places = Vec::with_capacity(count);
        for row in 0..used_rows {
            let in_row = (count - row * self.columns).min(self.columns);
            let (y, height) = share(self.area.height, rows, row);
            for column in 0..in_row {
                let (x, width) = share(self.area.width, in_row, column);
                places.push((first + row * self.columns + column, Place { x, y, width, height }));
            }
        }
        places
    }

    /// The pane that a step of `columns` and `rows` leads to, from one to its neighbour; the same if there is none.
    pub fn neighbour(&self, pane: usize, columns: i32, rows: i32) -> usize {
        let places = self.page(self.page_of(pane));
        let Some((_, from)) = places.iter().find(|(other, _)| *other == pane) else { return pane };
        let middle = |place: &Place| {
            (
                i32::from(place.x) + i32::from(place.width) / 2,
                i32::from(place.y) + i32::from(place.height) / 2,
            )
        };
        let (x, y) = middle(from);
        let ahead = |place: &Place| {
            let (to_x, to_y) = middle(place);
            let (along, across) = if columns != 0 {
                ((to_x - x) * columns.signum(), (to_y - y).abs())
            } else {
                ((to_y - y) * rows.signum(), (to_x - x).abs())
            };
            // Sideways only within a row.
            let reachable = along > 0 && (columns == 0 || place.y == from.y);
            reachable.then_some((along, across))
        };
        let found = places.iter().filter_map(|(other, place)| Some((ahead(place)?, *other))).min();
        found.map_or(pane, |(_, other)| other)
    }
}

/// One of `parts` nearly equal parts of a length: where it begins and how long it is.
fn share(length: u16, parts: usize, part: usize) -> (u16, u16) {
    let edge = |part: usize| u16::try_from(usize::from(length) * part / parts.max(1)).unwrap_or(length);
    (edge(part), edge(part + 1) - edge(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(panes: usize, width: u16, height: u16) -> Vec<(u16, u16, u16, u16)> {
        let layout = Layout::of(panes, Size { width, height }).unwrap();
        layout.page(0).iter().map(|(_, p)| (p.x, p.y, p.width, p.height)).collect()
    }

    #[test]
    fn four_guests_stand_in_two_rows_of_two() {
        assert_eq!(places(4, 160, 50), [(0, 0, 80, 25), (80, 0, 80, 25), (0, 25, 80, 25), (80, 25, 80, 25)]);
    }

    #[test]
    fn a_usual_terminal_shows_whole_lines_of_few_guests() {
        assert_eq!(places(1, 80, 23), [(0, 0, 80, 23)]);
        assert_eq!(places(2, 80, 23), [(0, 0, 80, 11), (0, 11, 80, 12)]);
        assert_eq!(places(4, 80, 23), [(0, 0, 40, 11), (40, 0, 40, 11), (0, 11, 40, 12), (40, 11, 40, 12)]);
    }

    #[test]
    fn the_last_row_is_shared_by_fewer() {
        assert_eq!(places(3, 160, 50), [(0, 0, 80, 25), (80, 0, 80, 25), (0, 25, 160, 25)]);
    }

    #[test]
    fn twenty_guests_on_a_small_terminal_are_paged() {
        let layout = Layout::of(20, Size { width: 80, height: 23 }).unwrap();
        assert_eq!((layout.per_page, layout.pages(), layout.page_of(19)), (8, 3, 2));
        assert_eq!(layout.page(2).len(), 4);
    }

    #[test]
    fn a_terminal_that_is_too_small_has_no_layout() {
        assert_eq!(Layout::of(1, Size { width: LEAST.width - 1, height: 50 }), None);
        assert_eq!(Layout::of(1, Size { width: 100, height: LEAST.height - 1 }), None);
    }

    #[test]
    fn an_arrow_leads_to_the_nearest_pane_there() {
        let layout = Layout::of(5, Size { width: 240, height: 50 }).unwrap();
        assert_eq!(layout.columns, 3);
        let steps = |pane| [(-1, 0), (1, 0), (0, -1), (0, 1)].map(|(x, y)| layout.neighbour(pane, x, y));
        assert_eq!(steps(0), [0, 1, 0, 3]);
        assert_eq!(steps(2), [1, 2, 2, 4]);
        assert_eq!(steps(4), [3, 4, 2, 4]);
    }

    proptest! {
        #[test]
        fn the_panes_of_a_page_cover_their_rows_and_never_overlap(
            panes in 0usize..70, width in 0u16..400, height in 0u16..150,
        ) {
            let Some(layout) = Layout::of(panes, Size { width, height }) else {
                prop_assert!(width < LEAST.width || height < LEAST.height);
                return Ok(());
            };
            let mut seen = Vec::new();
            for page in 0..layout.pages() {
                let mut taken = vec![false; usize::from(width) * usize::from(height)];
                for (pane, place) in layout.page(page) {
                    prop_assert_eq!(layout.page_of(pane), page);
                    prop_assert!(place.width >= LEAST.width && place.height >= LEAST.height, "{:?}", place);
                    for y in place.y..place.y + place.height {
                        for x in place.x..place.x + place.width {
                            let cell = &mut taken[usize::from(y) * usize::from(width) + usize::from(x)];
                            prop_assert!(!*cell, "{pane} stands on another");
                            *cell = true;
                        }
                    }
                    seen.push(pane);
                }
                if page == 0 && panes > 0 {
                    prop_assert!(taken.iter().all(|t| *t), "the first page has a hole");
                }
            }
            prop_assert_eq!(seen, (0..panes).collect::<Vec<_>>());
        }

        #[test]
        fn a_step_leads_to_a_pane_of_the_same_page(panes in 1usize..40, pane in 0usize..40, x in -1i32..2, y in -1i32..2) {
            let layout = Layout::of(panes, Size { width: 200, height: 60 }).unwrap();
            let pane = pane % panes;
            let to = layout.neighbour(pane, x, y);
            prop_assert!(to < panes);
            prop_assert_eq!(layout.page_of(to), layout.page_of(pane));
        }
    }
}
