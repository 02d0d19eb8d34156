/* The screen as text: known glyphs drawn on pictures and read back. The glyphs are those of the
 * fonts that the build found (glyph-samples.bin, written by src/reading/fonts.py). */
#include <glib.h>
#include <string.h>

#include "reading/font.h"
#include "reading/reading.h"

struct face {
    char name[24];
    uint32_t width, height, count;
    const uint32_t *glyphs; /* of each: its character, and a word for each row */
};

static GArray *faces;
static char *samples;

static void load_faces(const char *path)
{
    size_t length;
    g_assert_true(g_file_get_contents(path, &samples, &length, NULL));
    faces = g_array_new(FALSE, TRUE, sizeof(struct face));
    for (size_t at = 0; at < length;) {
        struct face face;
        memcpy(&face, samples + at, 36);
        face.glyphs = (const uint32_t *)(samples + at + 36);
        at += 36 + (size_t)face.count * (face.height + 1) * 4;
        g_array_append_val(faces, face);
    }
}

static const struct face *face_named(const char *name, uint32_t width, uint32_t height)
{
    for (unsigned i = 0; i < faces->len; i++) {
        const struct face *face = &g_array_index(faces, struct face, i);
        if (!strcmp(face->name, name) && face->width == width && face->height == height)
            return face;
    }
    g_test_skip("hv was built without this font");
    return NULL;
}

static const uint32_t *glyph_of(const struct face *face, gunichar code)
{
    for (unsigned i = 0; i < face->count; i++) {
        const uint32_t *glyph = face->glyphs + (size_t)i * (face->height + 1);
        if (glyph[0] == code)
            return glyph + 1;
    }
    return NULL;
}

/* --- pictures -------------------------------------------------------------------------------- */

struct paper {
    uint32_t *pixels, width, height;
    const struct face *face;
    uint32_t x, y;        /* where the grid begins */
    uint32_t step;        /* from cell to cell; 0: the font's width */
    uint32_t ink, ground; /* colours */
};

static struct paper paper_new(const char *name, uint32_t font_width, uint32_t font_height,
                              uint32_t width, uint32_t height)
{
    struct paper paper = { .width = width,
                           .height = height,
                           .face = face_named(name, font_width, font_height),
                           .ink = 0xaaaaaa };
    paper.pixels = g_new0(uint32_t, (size_t)width * height);
    return paper;
}

static uint32_t step_of(const struct paper *paper)
{
    return paper->step ? paper->step : paper->face->width;
}

static void fill(struct paper *paper, uint32_t x, uint32_t y, uint32_t width, uint32_t height,
                 uint32_t colour)
{
    for (uint32_t i = y; i < y + height && i < paper->height; i++) {
        for (uint32_t j = x; j < x + width && j < paper->width; j++)
            paper->pixels[(size_t)i * paper->width + j] = colour;
    }
}

static void draw_glyph(struct paper *paper, const struct face *face, uint32_t column, uint32_t row,
                       const uint32_t *rows)
{
    uint32_t x = paper->x + column * step_of(paper), y = paper->y + row * face->height;
    for (uint32_t i = 0; i < face->height; i++) {
        for (uint32_t j = 0; j < face->width; j++) {
            bool set = rows && rows[i] >> (face->width - 1 - j) & 1;
            paper->pixels[(size_t)(y + i) * paper->width + x + j] =
                set ? paper->ink : paper->ground;
        }
    }
}

static void print(struct paper *paper, uint32_t column, uint32_t row, const char *text)
{
    for (; *text; text = g_utf8_next_char(text), column++) {
        const uint32_t *rows = glyph_of(paper->face, g_utf8_get_char(text));
        draw_glyph(paper, paper->face, column, row, rows);
    }
}

static struct rectangle cells(const struct paper *paper, uint32_t column, uint32_t row,
                              uint32_t columns)
{
    return (struct rectangle){ paper->x + column * step_of(paper),
                               paper->y + row * paper->face->height, columns * step_of(paper),
                               paper->face->height };
}

static bool update(struct reading *reading, const struct paper *paper, struct rectangle changed)
{
    return reading_update(reading, paper->pixels, paper->width, paper->height, changed);
}

static bool update_all(struct reading *reading, const struct paper *paper)
{
    return update(reading, paper, (struct rectangle){ 0, 0, paper->width, paper->height });
}

/* The text of a reader that sees the picture for the first time, without empty lines. */
static char *read_once(const struct paper *paper)
{
    struct reading *reading = reading_new();
    update_all(reading, paper);
    g_auto(GStrv) lines = g_strsplit(reading_text(reading), "\n", -1);
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; lines[i]; i++) {
        if (*lines[i])
            g_string_append_printf(text, "%s\n", lines[i]);
    }
    reading_free(reading);
    return g_string_free(text, FALSE);
}

static void assert_reads(const struct paper *paper, const char *expected)
{
    g_autofree char *text = read_once(paper);
    g_assert_cmpstr(text, ==, expected);
}

static void paper_free(struct paper *paper)
{
    g_free(paper->pixels);
}

/* --- tests ----------------------------------------------------------------------------------- */

static const char *const lorem[] = {
    "SeaBIOS (version 1.16.2-debian-1.16.2-1)",
    "Booting from Hard Disk...",
    "[    0.000000] Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)",
    "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    "root@host:~# echo 'The quick brown fox' | sed \"s/fox/dog/\" >{a,b}; exit 0",
    "|_`!@#$%^&*()-=+[]\\;:,.<>/?~ 0123456789 Il1 O0",
};

static char *print_lorem(struct paper *paper, uint32_t row)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(lorem); i++) {
        uint32_t columns = (paper->width - paper->x) / step_of(paper);
        g_autofree char *line = g_strndup(lorem[i], columns);
        g_strchomp(line);
        print(paper, 0, row + i, line);
        g_string_append_printf(text, "%s\n", line);
    }
    return g_string_free(text, FALSE);
}

/* Every glyph of every font, each line of them with a line of letters to stand on the grid. */
static void every_glyph(void)
{
    for (unsigned i = 0; i < faces->len; i++) {
        const struct face *face = &g_array_index(faces, struct face, i);
        bool wide = face->width == 16 && face->height == 16; /* unifont's, two cells each */
        const struct face *letters = wide ? face_named("unifont", 8, 16) : face;
        struct paper paper = { .width = 1280, .height = 800, .face = letters, .ink = 0xffffff };
        if (!letters)
            continue;
        bool latin = glyph_of(letters, 'A') && glyph_of(letters, 'q');
        paper.pixels = g_new0(uint32_t, (size_t)paper.width * paper.height);
        uint32_t columns = 1280 / face->width, rows = 800 / face->height;
        struct reading *reading = reading_new();
        for (unsigned at = 0; at < face->count;) {
            GString *expected = g_string_new(NULL);
            memset(paper.pixels, 0, (size_t)paper.width * paper.height * 4);
            if (latin)
                print(&paper, 0, 0, "The quick brown fox jumps over the lazy dog");
            for (uint32_t row = 1; row < rows; row++) {
                for (uint32_t column = 0; column + 1 < columns && at < face->count;
                     column += 2, at++) {
                    const uint32_t *glyph = face->glyphs + (size_t)at * (face->height + 1);
                    uint32_t step = face->width / letters->width;
                    /* Twice: a single low line would be the cursor. */
                    draw_glyph(&paper, face, column * step, row, glyph + 1);
                    draw_glyph(&paper, face, (column + 1) * step, row, glyph + 1);
                    g_string_append_unichar(expected, glyph[0]);
                    g_string_append_unichar(expected, glyph[0]);
                }
                g_string_append_c(expected, '\n');
            }
            update_all(reading, &paper);
            const char *text = strchr(reading_text(reading), '\n');
            if (!text)
                g_error("%s %ux%u: no text is seen", face->name, face->width, face->height);
            if (strcmp(text + 1, expected->str)) {
                size_t k = 0;
                while (text[1 + k] == expected->str[k])
                    k++;
                while (k && (expected->str[k] & 0xc0) == 0x80) /* to a character's first byte */
                    k--;
                g_error("%s %ux%u: U+%04X is read as U+%04X", face->name, face->width, face->height,
                        g_utf8_get_char(expected->str + k), g_utf8_get_char(text + 1 + k));
            }
            g_string_free(expected, TRUE);
        }
        reading_free(reading);
        paper_free(&paper);
    }
}

/* What boot loaders, firmware and the kernel show, on their grids. */
static void grids(void)
{
    static const struct {
        const char *name;
        uint32_t font_width, font_height, width, height, x, y, step;
    } screens[] = {
        { "VGA", 8, 16, 640, 400, 0, 0, 0 },  /* text in a graphics mode */
        { "VGA", 8, 16, 720, 400, 0, 0, 9 },  /* text mode, nine dots */
        { "VGA", 8, 8, 640, 400, 0, 0, 0 },   /* 50 lines */
        { "VGA", 8, 14, 640, 350, 0, 0, 0 },  /* EGA */
        { "VGA", 8, 16, 1024, 768, 0, 0, 0 }, /* fbcon */
        { "VGA", 8, 16, 1280, 800, 0, 0, 0 },
        { "TerminusBold", 16, 32, 2560, 1600, 0, 0, 0 },
        { "Terminus", 8, 16, 1280, 800, 0, 0, 0 },
        { "TerminusBold", 10, 20, 1024, 768, 0, 0, 0 },
        { "Fixed", 8, 16, 1280, 800, 0, 0, 0 },
        { "Fixed", 8, 13, 800, 600, 0, 0, 0 },
        { "unifont", 8, 16, 640, 480, 10, 10, 0 },   /* GRUB's gfxterm */
        { "unifont", 8, 16, 1280, 800, 133, 77, 0 }, /* in a theme's box */
        { "EDK2", 8, 19, 1280, 800, 320, 162, 0 },   /* 80 x 25 in the middle */
        { "EDK2", 8, 19, 800, 600, 0, 5, 0 },        /* 100 x 31 */
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(screens); i++) {
        struct paper paper = paper_new(screens[i].name, screens[i].font_width,
                                       screens[i].font_height, screens[i].width, screens[i].height);
        if (paper.face) {
            paper.x = screens[i].x;
            paper.y = screens[i].y;
            paper.step = screens[i].step;
            g_autofree char *expected = print_lorem(&paper, 3);
            assert_reads(&paper, expected);
            memset(paper.pixels, 0, (size_t)paper.width * paper.height * 4);
            print(&paper, 0, 0, "grub> "); /* little is enough */
            assert_reads(&paper, "grub>\n");
        }
        paper_free(&paper);
    }
}

/* Screens full of letters, digits and signs in no order, as consoles, boot loaders and
 * firmware stand on them: all are read. */
static void full_screens(void)
{
    static const struct {
        const char *name;
        uint32_t font_width, font_height, width, height, x, y, step;
    } screens[] = {
        { "VGA", 8, 16, 720, 400, 0, 0, 9 },  /* SeaBIOS, GRUB, Linux's text mode */
        { "VGA", 8, 16, 1024, 768, 0, 0, 0 }, /* Linux's consoles */
        { "VGA", 8, 16, 1280, 800, 0, 0, 0 },
        { "Fixed", 8, 16, 1024, 768, 0, 0, 0 },
        { "Fixed", 8, 16, 1280, 800, 0, 0, 0 },
        { "Terminus", 8, 16, 1024, 768, 0, 0, 0 },
        { "TerminusBold", 10, 20, 1280, 800, 0, 0, 0 },
        { "TerminusBold", 16, 32, 1280, 800, 0, 0, 0 },
        { "unifont", 8, 16, 1024, 768, 10, 10, 0 }, /* GRUB's graphical terminal */
        { "EDK2", 8, 19, 1280, 800, 0, 1, 0 },      /* OVMF's shell: 160 x 42 */
        { "EDK2", 8, 19, 1024, 768, 0, 4, 0 },      /* 128 x 40 */
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(screens); i++) {
        struct paper paper = paper_new(screens[i].name, screens[i].font_width,
                                       screens[i].font_height, screens[i].width, screens[i].height);
        g_autoptr(GRand) random = g_rand_new_with_seed(i);
        g_autoptr(GString) expected = g_string_new(NULL);
        paper.x = screens[i].x;
        paper.y = screens[i].y;
        paper.step = screens[i].step;
        uint32_t rows = paper.face ? (paper.height - paper.y) / paper.face->height : 0;
        uint32_t columns = paper.face ? (paper.width - paper.x) / step_of(&paper) : 0;
        for (uint32_t row = 0; row < rows; row++) {
            for (uint32_t column = 0; column < columns; column++) {
                gunichar code = (gunichar)g_rand_int_range(random, 0x21, 0x7f);
                draw_glyph(&paper, paper.face, column, row, glyph_of(paper.face, code));
                g_string_append_unichar(expected, code);
            }
            g_string_append_c(expected, '\n');
        }
        assert_reads(&paper, expected->str);
        paper_free(&paper);
    }
}

static void colours(void)
{
    struct paper paper = paper_new("VGA", 8, 16, 640, 400);
    if (paper.face) {
        static const uint32_t pairs[][2] = {
            { 0xffffff, 0x0000aa }, { 0, 0xaaaaaa }, { 0xff0000, 0xff0001 }, { 0x555555, 0 }
        };
        for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++) {
            paper.ink = pairs[i][0];
            paper.ground = pairs[i][1];
            print(&paper, i, i + 1, "Choose the language:");
        }
        assert_reads(&paper, "Choose the language:\n Choose the language:\n"
                             "  Choose the language:\n   Choose the language:\n");
        /* A highlighted line of a menu; pixels whose highest byte means nothing. */
        paper.ink = 0xff000000;
        paper.ground = 0xff00aaaa;
        fill(&paper, 0, 0, 640, 400, 0xff00aaaa);
        print(&paper, 2, 5, "\342\224\202 Advanced options \342\224\202\342\226\204\342\226\200");
        assert_reads(&paper,
                     "  \342\224\202 Advanced options \342\224\202\342\226\204\342\226\200\n");
    }
    paper_free(&paper);
}

/* A cursor: lines that are filled or inverted, over letters and over nothing. */
static void cursor(void)
{
    static const struct {
        const char *name;
        uint32_t width, height, first, end;
        bool filled; /* else inverted */
    } cursors[] = {
        { "VGA", 8, 16, 14, 16, false }, /* fbcon: two lines */
        { "VGA", 8, 16, 0, 16, false },  /* a block */
        { "VGA", 8, 16, 8, 16, false },  /* half a block */
        { "VGA", 8, 16, 13, 15, true },  /* text mode */
        { "TerminusBold", 16, 32, 30, 32, false },
        { "Terminus", 8, 16, 14, 16, false },
        { "unifont", 8, 16, 14, 16, true }, /* GRUB */
        { "EDK2", 8, 19, 16, 18, false },
    };
    const char *text = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 []#$@{}";
    for (unsigned i = 0; i < G_N_ELEMENTS(cursors); i++) {
        struct paper paper =
            paper_new(cursors[i].name, cursors[i].width, cursors[i].height, 1280, 800);
        g_autofree char *expected = g_strdup_printf("root login:\n%s\n", text);
        for (uint32_t column = 0; paper.face && column <= strlen(text); column++) {
            print(&paper, 0, 0, "root login:");
            print(&paper, 0, 1, text);
            struct rectangle box = cells(&paper, column, 1, 1);
            for (uint32_t y = box.y + cursors[i].first; y < box.y + cursors[i].end; y++) {
                for (uint32_t x = box.x; x < box.x + box.width; x++) {
                    uint32_t *pixel = &paper.pixels[(size_t)y * paper.width + x];
                    *pixel = cursors[i].filled ? paper.ink : *pixel ^ paper.ink;
                }
            }
            g_autofree char *found = read_once(&paper);
            g_autofree char *marked = g_strdup(found);
            const char *lost = strstr(found, "\357\277\275");
            if (lost && cursors[i].filled) { /* of some letters too little is left */
                g_free(marked);
                marked =
                    g_strdup_printf("%.*s%c%s", (int)(lost - found), found, text[column], lost + 3);
                g_test_message("%s: not known under the cursor: %c", cursors[i].name, text[column]);
            }
            if (strcmp(marked, expected))
                g_error("%s, lines %u to %u, on '%c': %s", cursors[i].name, cursors[i].first,
                        cursors[i].end, text[column], found);
            draw_glyph(&paper, paper.face, column, 1, NULL);
        }
        paper_free(&paper);
    }
}

/* Only what is said to have changed is read again. */
static void changes(void)
{
    struct paper paper = paper_new("VGA", 8, 16, 1024, 768);
    struct reading *reading = reading_new();
    uint32_t columns, rows;
    g_assert_false(update_all(reading, &paper));
    g_assert_cmpint(reading_source(reading), ==, READING_NONE);
    g_assert_cmpstr(reading_text(reading), ==, "");
    if (paper.face) {
        print(&paper, 0, 0, "login: ");
        g_assert_true(update(reading, &paper, cells(&paper, 0, 0, 7)));
        g_assert_true(g_str_has_prefix(reading_text(reading), "login:\n\n"));
        reading_size(reading, &columns, &rows);
        g_assert_cmpuint(columns, ==, 128);
        g_assert_cmpuint(rows, ==, 48);

        print(&paper, 7, 0, "r");
        print(&paper, 9, 0, "x");
        g_assert_true(update(reading, &paper, cells(&paper, 7, 0, 1)));
        g_assert_true(g_str_has_prefix(reading_text(reading), "login: r\n")); /* the x is not due */
        g_assert_false(update(reading, &paper, cells(&paper, 7, 0, 1)));
        g_assert_true(update(reading, &paper, cells(&paper, 9, 0, 1)));
        g_assert_true(g_str_has_prefix(reading_text(reading), "login: r x\n"));

        const GArray *words = reading_words(reading);
        g_assert_cmpuint(words->len, ==, 3);
        const struct word *word = &g_array_index(words, struct word, 1);
        g_assert_cmpstr(word->text, ==, "r");
        g_assert_cmpuint(word->x, ==, 56);
        g_assert_cmpuint(word->y, ==, 0);
        g_assert_cmpuint(word->width, ==, 8);
        g_assert_cmpuint(word->height, ==, 16);
        g_assert_cmpint(word->source, ==, READING_GLYPHS);

        /* Another program, another grid. */
        memset(paper.pixels, 0, (size_t)paper.width * paper.height * 4);
        paper.x = 3;
        paper.y = 5;
        g_free(print_lorem(&paper, 0));
        g_assert_true(update_all(reading, &paper));
        g_assert_true(g_str_has_prefix(reading_text(reading), "SeaBIOS ("));
    }
    reading_free(reading);
    paper_free(&paper);
}

/* What is not known is said to be unknown; pictures are no text. */
static void unknown(void)
{
    struct paper paper = paper_new("VGA", 8, 16, 640, 480);
    if (paper.face) {
        g_autoptr(GRand) random = g_rand_new_with_seed(5);
        print(&paper, 0, 0, "What is this? It is not known.");
        fill(&paper, 8, 20, 5, 1, paper.ink);
        fill(&paper, 9, 22, 2, 5, paper.ink);
        fill(&paper, 13, 21, 1, 8, paper.ink);
        for (uint32_t i = 0; i < 64 * 64; i++)
            paper.pixels[(64 + i / 64) * 640 + i % 64] = g_rand_int(random) & 0xffffff;
        assert_reads(&paper, "What is this? It is not known.\n \357\277\275\n");

        /* A photograph alone has no text, and a desktop has none either. */
        for (uint32_t i = 0; i < 640 * 480; i++)
            paper.pixels[i] = g_rand_int(random) & 0x3f3f3f;
        assert_reads(&paper, "");
        fill(&paper, 0, 0, 640, 480, 0x336699);
        for (uint32_t i = 0; i < 12; i++)
            fill(&paper, 20 + i * 37, 30 + i * 31, 100, 60, 0xe0e0e0 + i);
        assert_reads(&paper, "");
    }
    paper_free(&paper);
}

/* A boot menu over a picture: letters of one colour with a shadow. */
static void before_a_picture(void)
{
    struct paper paper = paper_new("VGA", 8, 16, 640, 480);
    if (paper.face) {
        const char *lines[] = { "Debian GNU/Linux installer menu (BIOS mode)", "Graphical install",
                                "Advanced options >" };
        g_autoptr(GRand) random = g_rand_new_with_seed(6);
        for (uint32_t i = 0; i < 640 * 480; i++)
            paper.pixels[i] = (i % 640 / 3) << 8 | (i / 1280) | (g_rand_int(random) & 0x30000);
        for (unsigned line = 0; line < G_N_ELEMENTS(lines); line++) {
            for (unsigned k = 0; lines[line][k]; k++) {
                const uint32_t *rows = glyph_of(paper.face, (guchar)lines[line][k]);
                for (unsigned y = 0; rows && y < 16; y++) {
                    for (unsigned x = 0; x < 8; x++) {
                        if (rows[y] >> (7 - x) & 1)
                            paper.pixels[(y + (line + 4) * 16) * 640 + x + (k + 4) * 8] = 0xffffff;
                    }
                }
            }
        }
        assert_reads(&paper, "    Debian GNU/Linux installer menu (BIOS mode)\n"
                             "    Graphical install\n    Advanced options >\n");
    }
    paper_free(&paper);
}

static void selecting(void)
{
    struct paper paper = paper_new("VGA", 8, 16, 640, 400);
    struct reading *reading = reading_new();
    uint32_t column, row;
    g_assert_false(reading_cell_at(reading, 0, 0, &column, &row));
    if (paper.face) {
        print(&paper, 0, 1, "first line here");
        print(&paper, 0, 2, "second line here");
        print(&paper, 0, 3, "third line here");
        update_all(reading, &paper);
        g_assert_true(reading_cell_at(reading, 6 * 8 + 3, 16 + 9, &column, &row));
        g_assert_cmpuint(column, ==, 6);
        g_assert_cmpuint(row, ==, 1);
        g_autofree char *within = reading_between(reading, 6, 1, 9, 1);
        g_assert_cmpstr(within, ==, "line");
        g_autofree char *across = reading_between(reading, 4, 3, 6, 1); /* drawn upwards */
        g_assert_cmpstr(across, ==, "line here\nsecond line here\nthird");
        g_assert_true(reading_cell_at(reading, 5000, 5000, &column, &row));
        g_assert_cmpuint(column, ==, 79);
        g_assert_cmpuint(row, ==, 24);
    }
    reading_free(reading);
    paper_free(&paper);
}

static void text_screen(void)
{
    struct reading *reading = reading_new();
    gunichar codes[10] = { 'n', 'o', ' ', 'm', 'o', 'r', 'e', ' ', 0xe9, ' ' };
    reading_set_cells(reading, codes, 5, 2, 45, 32);
    g_assert_cmpstr(reading_text(reading), ==, "no mo\nre \303\251\n");
    const GArray *words = reading_words(reading);
    g_assert_cmpuint(words->len, ==, 4);
    const struct word *word = &g_array_index(words, struct word, 3);
    g_assert_cmpuint(word->x, ==, 27);
    g_assert_cmpuint(word->y, ==, 16);
    g_assert_cmpint(word->source, ==, READING_CELLS);
    reading_free(reading);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    load_faces(argc > 1 ? argv[1] : GLYPH_SAMPLES);
    g_test_add_func("/reading/every-glyph", every_glyph);
    g_test_add_func("/reading/grids", grids);
    g_test_add_func("/reading/full-screens", full_screens);
    g_test_add_func("/reading/colours", colours);
    g_test_add_func("/reading/cursor", cursor);
    g_test_add_func("/reading/changes", changes);
    g_test_add_func("/reading/unknown", unknown);
    g_test_add_func("/reading/before-a-picture", before_a_picture);
    g_test_add_func("/reading/selecting", selecting);
    g_test_add_func("/reading/text-screen", text_screen);
    int status = g_test_run();
    g_array_unref(faces);
    g_free(samples);
    return status;
}
