/* Readers; see reading.h. */
#include "reading/reading-core.h"

#include <string.h>

enum { CURSORS_MAX = 8 }; /* unknown cells in which a cursor is looked for */

const char *reading_source_name(enum reading_source source)
{
    static const char *const names[] = { "none", "cells", "glyphs", "ocr" };
    return names[source];
}

static void free_guess(gpointer word)
{
    g_free((char *)(uintptr_t)((struct word *)word)->text);
}

struct reading *reading_new(void)
{
    struct reading *reading = g_new0(struct reading, 1);
    reading->guessed = g_array_new(FALSE, FALSE, sizeof(struct word));
    g_array_set_clear_func(reading->guessed, free_guess);
    return reading;
}

void reading_forget_text(struct reading *reading)
{
    if (reading->text)
        g_string_free(reading->text, TRUE);
    if (reading->words)
        g_array_unref(reading->words);
    if (reading->strings)
        g_string_chunk_free(reading->strings);
    reading->text = NULL;
    reading->words = NULL;
    reading->strings = NULL;
}

static void forget_cells(struct reading *reading)
{
    g_clear_pointer(&reading->cells, g_free);
    reading->grid = (struct grid){ 0 };
    reading->source = READING_NONE;
    g_array_set_size(reading->guessed, 0);
}

void reading_free(struct reading *reading)
{
    if (!reading)
        return;
    reading_forget_text(reading);
    forget_cells(reading);
    g_array_unref(reading->guessed);
    g_free(reading);
}

static struct rectangle join(struct rectangle a, struct rectangle b)
{
    if (!a.width || !a.height)
        return b;
    if (!b.width || !b.height)
        return a;
    uint32_t right = MAX(a.x + a.width, b.x + b.width);
    uint32_t bottom = MAX(a.y + a.height, b.y + b.height);
    a.x = MIN(a.x, b.x);
    a.y = MIN(a.y, b.y);
    a.width = right - a.x;
    a.height = bottom - a.y;
    return a;
}

/* --- cells ----------------------------------------------------------------------------------- */

static struct cell *cell_of(const struct reading *reading, uint32_t column, uint32_t row)
{
    return &reading->cells[(size_t)row * reading->grid.columns + column];
}

struct rectangle reading_cell_box(const struct reading *reading, uint32_t column, uint32_t row)
{
    const struct grid *grid = &reading->grid;
    if (!grid->shape) /* a text screen: its cells fill the picture */
        return (struct rectangle){ column * (reading->width / MAX(grid->columns, 1)),
                                   row * (reading->height / MAX(grid->rows, 1)),
                                   reading->width / MAX(grid->columns, 1),
                                   reading->height / MAX(grid->rows, 1) };
    uint32_t width = shape_cell_width(grid->shape), height = shape_cell_height(grid->shape);
    return (struct rectangle){ grid->x + column * width, grid->y + row * height, width, height };
}

/* Glyphs before a picture: letters, and the rest near others of its colour. */
static void read_picture(struct reading *reading, const struct canvas *canvas, uint32_t column,
                         uint32_t row, struct cell *cell)
{
    struct rectangle box = reading_cell_box(reading, column, row);
    uint32_t colours[CELL_COLOURS];
    struct cell found;
    unsigned count = cell_colours(canvas, reading->grid.shape, box.x, box.y, colours);
    for (unsigned i = 0; i < count; i++) {
        bool near = false;
        for (uint32_t back = 1; back <= 2 && back <= column; back++)
            near |= cell[-(int)back].kind == CELL_KNOWN && cell[-(int)back].ink == colours[i];
        if (cell_read_ink(canvas, reading->grid.shape, box.x, box.y, colours[i], &found) &&
            (found.strong || near)) {
            *cell = found;
            return;
        }
    }
}

/* A glyph of two cells' width, like those of unifont for Chinese. */
static bool read_wide(const struct reading *reading, const struct canvas *canvas,
                      struct rectangle box, struct cell *cell)
{
    struct shape wide = *reading->grid.shape;
    struct dots dots;
    if (wide.width != 8 || wide.step != 8)
        return false;
    wide.width = wide.step = 16;
    cell_scan(canvas, &wide, box.x, box.y, true, &dots);
    cell_read(&dots, &wide, cell->paper, cell);
    return cell->kind == CELL_KNOWN;
}

struct tally {
    unsigned known, strong, unknown;
};

/* Reads one row's cells from first to last. */
static void read_row(struct reading *reading, const struct canvas *canvas, uint32_t row,
                     uint32_t first, uint32_t last)
{
    /* Glyphs of two cells' width are read whole. */
    while (first > 0 && cell_of(reading, first, row)->kind == CELL_HALF)
        first--;
    while (last + 1 < reading->grid.columns && cell_of(reading, last + 1, row)->kind == CELL_HALF)
        last++;
    for (uint32_t column = first; column <= last; column++) {
        struct cell *cell = cell_of(reading, column, row);
        struct rectangle box = reading_cell_box(reading, column, row);
        struct dots dots;
        cell_scan(canvas, reading->grid.shape, box.x, box.y, false, &dots);
        cell_read(&dots, reading->grid.shape, column ? cell[-1].paper : dots.colours[0], cell);
        if (cell->kind == CELL_PICTURE)
            read_picture(reading, canvas, column, row, cell);
    }
    for (uint32_t column = first; column < last; column++) {
        struct cell *cell = cell_of(reading, column, row), wide = cell[0];
        bool lines = cell[0].kind == CELL_KNOWN && cell[1].kind == CELL_KNOWN && !cell[0].strong &&
                     !cell[1].strong && cell[0].code != cell[1].code;
        bool unknown = cell[0].kind == CELL_UNKNOWN || cell[1].kind == CELL_UNKNOWN || lines;
        bool picture = cell[0].kind == CELL_PICTURE || cell[1].kind == CELL_PICTURE;
        if (!unknown || picture || cell[0].kind == CELL_HALF ||
            !read_wide(reading, canvas, reading_cell_box(reading, column, row), &wide))
            continue;
        cell[0] = wide;
        cell[1] = (struct cell){ ' ', wide.ink, wide.paper, CELL_HALF, false };
    }
}

/* The cells that a rectangle touches, and one more on each side for glyphs two cells wide. */
static bool touched(const struct grid *grid, struct rectangle changed, uint32_t first[2],
                    uint32_t last[2])
{
    if (!grid->columns || !grid->rows || !changed.width || !changed.height)
        return false;
    uint32_t width = shape_cell_width(grid->shape), height = shape_cell_height(grid->shape);
    uint32_t right = changed.x + changed.width, bottom = changed.y + changed.height;
    if (right <= grid->x || bottom <= grid->y)
        return false;
    first[0] = changed.x > grid->x ? (changed.x - grid->x) / width : 0;
    first[1] = changed.y > grid->y ? (changed.y - grid->y) / height : 0;
    if (first[0] >= grid->columns || first[1] >= grid->rows)
        return false;
    first[0] -= first[0] > 0;
    last[0] = MIN((right - 1 - grid->x) / width + 1, grid->columns - 1);
    last[1] = MIN((bottom - 1 - grid->y) / height, grid->rows - 1);
    return true;
}

/* Cells that are unknown may be known ones under a cursor; full lines low in an empty cell are one
 * themselves, when there is no other. */
static void read_cursors(struct reading *reading, const struct canvas *canvas,
                         const uint32_t first[2], const uint32_t last[2])
{
    unsigned tried = 0, underlines = 0;
    struct cell *underline = NULL;
    for (uint32_t row = first[1]; row <= last[1]; row++) {
        for (uint32_t column = first[0]; column <= last[0]; column++) {
            struct cell *cell = cell_of(reading, column, row);
            struct rectangle box = reading_cell_box(reading, column, row);
            struct dots dots;
            bool line = cell->kind == CELL_KNOWN && !cell->strong && cell->code >= 0x7f;
            if (!line && cell->kind != CELL_UNKNOWN)
                continue;
            cell_scan(canvas, reading->grid.shape, box.x, box.y, false, &dots);
            if (cell_is_underline(&dots, reading->grid.shape)) {
                underline = cell;
                underlines++;
            } else if (cell->kind == CELL_UNKNOWN && tried++ < CURSORS_MAX) {
                cell_read_cursor(&dots, reading->grid.shape, cell);
            }
        }
    }
    if (underlines == 1)
        *underline = (struct cell){ ' ', underline->ink, underline->paper, CELL_BLANK, false };
}

static struct tally read_cells(struct reading *reading, const struct canvas *canvas,
                               struct rectangle changed)
{
    struct tally tally = { 0 };
    uint32_t first[2], last[2];
    if (!touched(&reading->grid, changed, first, last))
        return tally;
    for (uint32_t row = first[1]; row <= last[1]; row++)
        read_row(reading, canvas, row, first[0], last[0]);
    read_cursors(reading, canvas, first, last);
    for (uint32_t row = first[1]; row <= last[1]; row++) {
        for (uint32_t column = first[0]; column <= last[0]; column++) {
            const struct cell *cell = cell_of(reading, column, row);
            tally.known += cell->kind == CELL_KNOWN;
            tally.strong += cell->strong;
            tally.unknown += cell->kind == CELL_UNKNOWN;
        }
    }
    return tally;
}

/* --- pictures -------------------------------------------------------------------------------- */

static bool same_grid(const struct grid *a, const struct grid *b)
{
    return a->shape == b->shape && a->x == b->x && a->y == b->y && a->columns == b->columns &&
           a->rows == b->rows;
}

/* Looks for the grid anew; false when there is none but the old. */
static bool find_grid(struct reading *reading, const struct canvas *canvas)
{
    struct grid grid;
    if (!grid_find(canvas, &grid) || same_grid(&grid, &reading->grid))
        return false;
    forget_cells(reading);
    reading->grid = grid;
    reading->cells = g_new0(struct cell, (size_t)grid.columns * grid.rows);
    reading->source = READING_GLYPHS;
    return true;
}

/* Does the picture stand on the grid no more? */
static bool is_off(const struct tally *tally)
{
    return tally->unknown >= 3 && tally->unknown > tally->known;
}

static bool same_cells(const struct cell *a, const struct cell *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (a[i].code != b[i].code)
            return false;
    }
    return true;
}

bool reading_update(struct reading *reading, const uint32_t *pixels, uint32_t width,
                    uint32_t height, struct rectangle changed)
{
    struct canvas canvas = { pixels, width, height };
    struct rectangle whole = { 0, 0, width, height };
    bool had = reading->source != READING_NONE;
    if (reading->source == READING_CELLS || width != reading->width || height != reading->height) {
        forget_cells(reading);
        changed = reading->stale = whole;
        reading->width = width;
        reading->height = height;
    }
    if (changed.x >= width || changed.y >= height)
        return had != (reading->source != READING_NONE);
    changed.width = MIN(changed.width, width - changed.x);
    changed.height = MIN(changed.height, height - changed.y);
    reading->stale = join(reading->stale, changed);

    size_t count = (size_t)reading->grid.columns * reading->grid.rows;
    g_autofree struct cell *before =
        reading->cells ? g_memdup2(reading->cells, count * sizeof *before) : NULL;
    struct tally tally = read_cells(reading, &canvas, changed);
    if ((!reading->grid.shape || is_off(&tally)) && find_grid(reading, &canvas)) {
        read_cells(reading, &canvas, whole);
        reading->stale = whole;
        before = (g_free(before), NULL);
    }
    bool other = reading->cells ? !before || !same_cells(before, reading->cells, count) : had;
    if (other)
        reading_forget_text(reading);
    return other;
}

void reading_set_cells(struct reading *reading, const gunichar *codes, uint32_t columns,
                       uint32_t rows, uint32_t width, uint32_t height)
{
    reading_forget_text(reading);
    forget_cells(reading);
    reading->grid = (struct grid){ .columns = columns, .rows = rows };
    reading->cells = g_new0(struct cell, MAX((size_t)columns * rows, 1));
    for (size_t i = 0; i < (size_t)columns * rows; i++)
        reading->cells[i] = (struct cell){ .code = codes[i], .kind = CELL_KNOWN };
    reading->source = READING_CELLS;
    reading->width = width;
    reading->height = height;
}

/* --- text ------------------------------------------------------------------------------------ */

/* Columns that are empty in all rows, on a grid that does not begin at the picture's edge: the
 * guest's own columns begin after them. */
static uint32_t margin(const struct reading *reading)
{
    if (!reading->grid.x && !reading->grid.y)
        return 0;
    for (uint32_t column = 0; column < reading->grid.columns; column++) {
        for (uint32_t row = 0; row < reading->grid.rows; row++) {
            if (cell_of(reading, column, row)->code != ' ')
                return column;
        }
    }
    return 0;
}

static void append_cells(const struct reading *reading, GString *text, uint32_t row, uint32_t first,
                         uint32_t end)
{
    gsize start = text->len;
    for (uint32_t column = first; column < end; column++) {
        const struct cell *cell = cell_of(reading, column, row);
        if (cell->kind != CELL_HALF)
            g_string_append_unichar(text, cell->code);
    }
    while (text->len > start && text->str[text->len - 1] == ' ')
        g_string_truncate(text, text->len - 1);
}

/* The words of a row of cells. */
static void add_words(struct reading *reading, uint32_t row, uint32_t from)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (uint32_t column = from, end; column < reading->grid.columns; column = end + 1) {
        end = column;
        while (end < reading->grid.columns && (cell_of(reading, end, row)->code != ' ' ||
                                               cell_of(reading, end, row)->kind == CELL_HALF))
            end++;
        if (end == column)
            continue;
        struct rectangle first = reading_cell_box(reading, column, row);
        g_string_truncate(text, 0);
        append_cells(reading, text, row, column, end);
        struct word word = { .text = g_string_chunk_insert(reading->strings, text->str),
                             .x = first.x,
                             .y = first.y,
                             .width = first.width * (end - column),
                             .height = first.height,
                             .line = row,
                             .source = reading->source };
        g_array_append_val(reading->words, word);
    }
}

static void make_text(struct reading *reading)
{
    if (reading->text)
        return;
    reading->text = g_string_new(NULL);
    reading->words = g_array_new(FALSE, FALSE, sizeof(struct word));
    reading->strings = g_string_chunk_new(1024);
    uint32_t from = reading->cells ? margin(reading) : 0;
    for (uint32_t row = 0; row < reading->grid.rows; row++) {
        append_cells(reading, reading->text, row, from, reading->grid.columns);
        g_string_append_c(reading->text, '\n');
        add_words(reading, row, from);
    }
    uint32_t line = reading->grid.rows;
    for (unsigned i = 0; i < reading->guessed->len; i++) {
        struct word word = g_array_index(reading->guessed, struct word, i);
        const struct word *last = i ? &g_array_index(reading->guessed, struct word, i - 1) : NULL;
        bool on = last && last->line == word.line;
        if (last)
            g_string_append_c(reading->text, on ? ' ' : '\n');
        g_string_append(reading->text, word.text);
        line += last && !on;
        word.line = line;
        g_array_append_val(reading->words, word);
    }
    if (reading->guessed->len)
        g_string_append_c(reading->text, '\n');
}

const char *reading_text(struct reading *reading)
{
    make_text(reading);
    return reading->text->str;
}

const GArray *reading_words(struct reading *reading)
{
    make_text(reading);
    return reading->words;
}

enum reading_source reading_source(const struct reading *reading)
{
    return reading->source;
}

void reading_size(const struct reading *reading, uint32_t *columns, uint32_t *rows)
{
    *columns = reading->grid.columns;
    *rows = reading->grid.rows;
}

/* --- selecting ------------------------------------------------------------------------------- */

bool reading_cell_at(const struct reading *reading, uint32_t x, uint32_t y, uint32_t *column,
                     uint32_t *row)
{
    const struct grid *grid = &reading->grid;
    if (!reading->cells || !grid->columns || !grid->rows)
        return false;
    struct rectangle cell = reading_cell_box(reading, 0, 0);
    if (!cell.width || !cell.height)
        return false;
    *column = MIN((x - MIN(x, cell.x)) / cell.width, grid->columns - 1);
    *row = MIN((y - MIN(y, cell.y)) / cell.height, grid->rows - 1);
    return true;
}

char *reading_between(const struct reading *reading, uint32_t column, uint32_t row,
                      uint32_t last_column, uint32_t last_row)
{
    GString *text = g_string_new(NULL);
    uint32_t columns = reading->grid.columns, from = reading->cells ? margin(reading) : 0;
    if (last_row < row || (last_row == row && last_column < column)) {
        uint32_t keep[] = { column, row };
        column = last_column;
        row = last_row;
        last_column = keep[0];
        last_row = keep[1];
    }
    for (uint32_t now = row; now <= last_row && now < reading->grid.rows; now++) {
        if (now > row)
            g_string_append_c(text, '\n');
        append_cells(reading, text, now, now == row ? column : from,
                     now == last_row ? MIN(last_column + 1, columns) : columns);
    }
    return g_string_free(text, FALSE);
}
