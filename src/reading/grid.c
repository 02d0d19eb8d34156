/* Finding the grid; see grid.h. */
#include "reading/grid.h"

#include <glib.h>
#include <string.h>

/* Every size of the fonts that fonts.py reads. When a short text fits several, the first one wins:
 * fonts of 8 x 14 have many letters of those of 8 x 16. */
static const struct shape shapes[] = {
    { 8, 16, 8, 1, 1 },   { 8, 19, 8, 1, 1 },   { 16, 32, 16, 1, 1 }, { 8, 16, 9, 1, 1 },
    { 8, 14, 8, 1, 1 },   { 8, 8, 8, 1, 1 },    { 8, 15, 8, 1, 1 },   { 8, 18, 8, 1, 1 },
    { 8, 13, 8, 1, 1 },   { 8, 12, 8, 1, 1 },   { 6, 12, 6, 1, 1 },   { 10, 18, 10, 1, 1 },
    { 10, 20, 10, 1, 1 }, { 11, 22, 11, 1, 1 }, { 12, 24, 12, 1, 1 }, { 14, 28, 14, 1, 1 },
    { 16, 28, 16, 1, 1 }, { 8, 14, 9, 1, 1 },   { 8, 8, 9, 1, 1 },    { 8, 8, 8, 2, 2 },
    { 8, 8, 8, 1, 2 },    { 8, 16, 8, 2, 1 },   { 8, 16, 9, 2, 1 },
};

enum {
    BLOCK_WIDTH = 64, /* samples are spread over blocks of this size */
    BLOCK_HEIGHT = 16,
    BLOCKS_MAX = 96,
    SPOTS_MAX = 160,
    INKS_MAX = 4,
    PATIENCE =
        12, /* so many samples that are no text, or twice with empty cells: it is not the grid */
    VOTES_MIN = 64, /* pixels of a colour, of those looked at, that may be a text's */
};

/* Places where the colour changes from one pixel to the next. */
struct spots {
    struct spot {
        uint32_t x, y;
    } spot[SPOTS_MAX];
    unsigned count;
};

struct score {
    unsigned strong, weak, failed;
};

static int points(const struct score *score)
{
    return (int)(3 * score->strong + score->weak) - (int)score->failed;
}

/* --- samples --------------------------------------------------------------------------------- */

/* The first change in columns x to end of a few lines; with `ink`, the first to that colour. */
static bool find_change(const struct canvas *canvas, uint32_t x, uint32_t end, uint32_t y,
                        uint32_t bottom, const uint32_t *ink, struct spot *spot)
{
    for (; y < bottom; y++) {
        const uint32_t *line = canvas->pixels + (size_t)y * canvas->width;
        uint32_t change = 0;
        for (uint32_t i = x; i < end; i++)
            change |= line[i] ^ line[i - 1];
        if (!change)
            continue;
        for (uint32_t i = x; i < end; i++) {
            if (line[i] != line[i - 1] && (!ink || line[i] == *ink)) {
                *spot = (struct spot){ i, y };
                return true;
            }
        }
    }
    return false;
}

/* Blocks in an order that is spread over the picture; those that are not empty. */
static unsigned find_blocks(const struct canvas *canvas, const uint32_t *ink,
                            struct spot blocks[BLOCKS_MAX])
{
    uint32_t columns = (canvas->width + BLOCK_WIDTH - 1) / BLOCK_WIDTH;
    uint32_t rows = (canvas->height + BLOCK_HEIGHT - 1) / BLOCK_HEIGHT;
    uint32_t all = columns * rows, stride = (uint32_t)(all * 0.618) | 1;
    while (stride > 1) { /* without a common divisor: each comes once */
        uint32_t a = all, b = stride;
        while (b) {
            uint32_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            break;
        stride -= 2;
    }
    unsigned count = 0;
    for (uint32_t i = 0, block = 0; i < all && count < BLOCKS_MAX;
         i++, block = (block + stride) % all) {
        struct spot at = { block % columns * BLOCK_WIDTH, block / columns * BLOCK_HEIGHT }, found;
        if (find_change(canvas, MAX(at.x, 1), MIN(at.x + BLOCK_WIDTH, canvas->width), at.y,
                        MIN(at.y + BLOCK_HEIGHT, canvas->height), ink, &found))
            blocks[count++] = at;
    }
    return count;
}

static void find_spots(const struct canvas *canvas, const uint32_t *ink, struct spots *spots)
{
    struct spot blocks[BLOCKS_MAX];
    unsigned count = find_blocks(canvas, ink, blocks);
    unsigned each = count ? CLAMP(SPOTS_MAX / count, 1, BLOCK_WIDTH / 8) : 0;
    spots->count = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned taken = 0;
        for (uint32_t x = 0; x < BLOCK_WIDTH && taken < each; x += 8) {
            uint32_t left = blocks[i].x + x;
            if (left < canvas->width && spots->count < SPOTS_MAX &&
                find_change(canvas, MAX(left, 1), MIN(left + 8, canvas->width), blocks[i].y,
                            MIN(blocks[i].y + BLOCK_HEIGHT, canvas->height), ink,
                            &spots->spot[spots->count])) {
                spots->count++;
                taken++;
            }
        }
    }
}

/* The colours that single pixels have most often, by a look at some of them. */
static unsigned find_inks(const struct canvas *canvas, uint32_t inks[INKS_MAX])
{
    enum { BUCKETS = 1024, EACH = 3 };
    struct {
        uint32_t colour, votes; /* the majority's */
    } seen[BUCKETS] = { 0 };
    size_t all = (size_t)canvas->width * canvas->height;
    for (size_t i = 0; i < all; i += EACH) {
        uint32_t colour = canvas->pixels[i], k = colour * 0x9e3779b1u >> 22;
        if (!seen[k].votes)
            seen[k].colour = colour;
        if (seen[k].colour == colour)
            seen[k].votes++;
        else
            seen[k].votes--;
    }
    unsigned found = 0;
    for (; found < INKS_MAX; found++) {
        unsigned best = 0;
        for (unsigned i = 1; i < BUCKETS; i++)
            best = seen[i].votes > seen[best].votes ? i : best;
        if (seen[best].votes < VOTES_MIN)
            break;
        inks[found] = seen[best].colour;
        seen[best].votes = 0;
    }
    return found;
}

/* --- trying ---------------------------------------------------------------------------------- */

/* The cell at a sample. With `ink`, what takes longer is tried too: glyphs of that colour before a
 * picture. */
static void try_cell(const struct canvas *canvas, const struct shape *shape, uint32_t x, uint32_t y,
                     const uint32_t *ink, struct cell *cell)
{
    struct dots dots;
    cell_scan(canvas, shape, x, y, true, &dots);
    cell_read(&dots, shape, dots.colours[0], cell);
    if (ink && cell->kind == CELL_PICTURE)
        cell_read_ink(canvas, shape, x, y, *ink, cell);
    /* Glyphs of two cells, the sample in the left or the right one. */
    if (!ink || cell->kind != CELL_UNKNOWN || shape->step != 8)
        return;
    struct shape wide = *shape;
    wide.width = wide.step = 16;
    for (uint32_t back = 0; back <= 8 && cell->kind == CELL_UNKNOWN; back += 8) {
        if (x < back || x - back + 16 > canvas->width)
            continue;
        cell_scan(canvas, &wide, x - back, y, true, &dots);
        cell_read(&dots, &wide, dots.colours[0], cell);
    }
}

static struct score try_grid(const struct canvas *canvas, const struct grid *grid,
                             const struct spots *spots, const uint32_t *ink)
{
    struct score score = { 0 };
    unsigned seen = 0;
    uint32_t width = shape_cell_width(grid->shape), height = shape_cell_height(grid->shape);
    for (unsigned i = 0; i < spots->count; i++) {
        const struct spot *spot = &spots->spot[i];
        uint32_t column = (spot->x - grid->x) / width, row = (spot->y - grid->y) / height;
        if (spot->x < grid->x || spot->y < grid->y || column >= grid->columns || row >= grid->rows)
            continue;
        struct cell cell;
        try_cell(canvas, grid->shape, grid->x + column * width, grid->y + row * height, ink, &cell);
        if (cell.kind == CELL_KNOWN && cell.strong)
            score.strong++;
        else if (cell.kind == CELL_KNOWN)
            score.weak++;
        else if (cell.kind != CELL_BLANK)
            score.failed++;
        if (!score.strong && (score.failed >= PATIENCE || ++seen >= 2 * PATIENCE))
            break;
    }
    return score;
}

static struct grid grid_at(const struct canvas *canvas, const struct shape *shape, uint32_t x,
                           uint32_t y)
{
    uint32_t width = shape_cell_width(shape), height = shape_cell_height(shape);
    struct grid grid = { .shape = shape, .x = x % width, .y = y % height };
    grid.columns = canvas->width > grid.x ? (canvas->width - grid.x) / width : 0;
    grid.rows = canvas->height > grid.y ? (canvas->height - grid.y) / height : 0;
    return grid;
}

struct search {
    const struct canvas *canvas;
    const struct spots *spots;
    const uint32_t *ink; /* or NULL */
    struct grid best;
    struct score score;
};

static void search_at(struct search *search, const struct shape *shape, uint32_t x, uint32_t y)
{
    struct grid grid = grid_at(search->canvas, shape, x, y);
    struct score score = try_grid(search->canvas, &grid, search->spots, search->ink);
    if (points(&score) > points(&search->score) && score.strong) {
        search->best = grid;
        search->score = score;
    }
}

/* Nothing to be gained by looking further. */
static bool is_certain(const struct score *score)
{
    return score->strong >= 4 && score->failed * 10 <= score->strong + score->weak;
}

static bool is_likely(const struct score *score)
{
    unsigned read = score->strong + score->weak;
    return (score->strong >= 3 && read * 4 >= score->failed) || (score->strong && !score->failed);
}

/* Where text usually begins: at the corner; GRUB leaves a border of 10 pixels; EDK2's modes of
 * text stand in the middle. */
static void search_usual(struct search *search)
{
    static const uint32_t edk2[][2] = { { 80, 25 }, { 80, 50 }, { 100, 31 }, { 128, 40 } };
    uint32_t width = search->canvas->width, height = search->canvas->height;
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        search_at(search, &shapes[i], 0, 0);
        if (shapes[i].height == 16)
            search_at(search, &shapes[i], 10, 10);
        if (shapes[i].height != 19)
            continue;
        search_at(search, &shapes[i], width % 8 / 2, height % 19 / 2);
        for (unsigned j = 0; j < G_N_ELEMENTS(edk2); j++) {
            if (width >= edk2[j][0] * 8 && height >= edk2[j][1] * 19)
                search_at(search, &shapes[i], (width - edk2[j][0] * 8) / 2,
                          (height - edk2[j][1] * 19) / 2);
        }
    }
}

static void search_all(struct search *search, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (uint32_t y = 0; y < shape_cell_height(&shapes[i]); y++) {
            for (uint32_t x = 0; x < shape_cell_width(&shapes[i]); x++)
                search_at(search, &shapes[i], x, y);
        }
        if (is_certain(&search->score))
            return;
    }
}

/* Menus of boot loaders over a picture have the VGA's font, their letters one colour. */
static bool find_inked(const struct canvas *canvas, struct grid *grid)
{
    uint32_t inks[INKS_MAX];
    unsigned count = find_inks(canvas, inks);
    struct spots spots;
    struct search search = { .canvas = canvas, .spots = &spots };
    for (unsigned i = 0; i < count && !is_certain(&search.score); i++) {
        find_spots(canvas, &inks[i], &spots);
        search.ink = &inks[i];
        search_all(&search, 1);
    }
    *grid = search.best;
    return search.score.strong >= 4 && is_likely(&search.score);
}

bool grid_find(const struct canvas *canvas, struct grid *grid)
{
    struct spots spots;
    *grid = (struct grid){ 0 };
    find_spots(canvas, NULL, &spots);
    if (!spots.count)
        return false;
    struct search search = { .canvas = canvas, .spots = &spots };
    search_usual(&search);
    if (!is_certain(&search.score))
        search_all(&search, G_N_ELEMENTS(shapes));
    if (!is_likely(&search.score))
        return find_inked(canvas, grid);
    *grid = search.best;
    return true;
}
