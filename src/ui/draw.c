/* Boxes and text; see draw.h. */
#include "ui/draw.h"

#include <SDL_ttf.h>

#include "base/log.h"

enum { CACHE_MAX = 128 }; /* texts kept as textures */

struct draw {
    SDL_Renderer *renderer;
    TTF_Font *fonts[FONTS];
    GHashTable *texts; /* "font colour text" to SDL_Texture */
    double density;
    bool warned;
};

/* Sans serif fonts where distributions put them, the best first. */
static const char *const font_files[] = {
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/google-noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/liberation2/LiberationSans-Regular.ttf",
    "/usr/share/fonts/liberation-sans/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/freefont/FreeSans.ttf",
};
static const int font_points[FONTS] = { [FONT_TEXT] = 13, [FONT_TITLE] = 18 };

static const uint32_t palette[COLOURS] = {
    [COLOUR_STRIP] = 0x1e2126ff, [COLOUR_EDGE] = 0x383d46ff,      [COLOUR_PANEL] = 0x262a31ff,
    [COLOUR_HOVER] = 0x3a414dff, [COLOUR_ACCENT] = 0x2f6fd0ff,    [COLOUR_DANGER] = 0xb43c3cff,
    [COLOUR_TEXT] = 0xe6e9eeff,  [COLOUR_FAINT] = 0x9199a6ff,     [COLOUR_LAMP] = 0x5fd38dff,
    [COLOUR_DISK] = 0xf0b43cff,  [COLOUR_OFF] = 0x4a505aff,       [COLOUR_GOOD] = 0x5fd38dff,
    [COLOUR_DIM] = 0x0a0c0fb0,   [COLOUR_SELECTION] = 0x2f6fd080,
};

static SDL_Color colour_of(enum draw_colour colour)
{
    uint32_t rgba = palette[colour];
    return (SDL_Color){ (Uint8)(rgba >> 24), (Uint8)(rgba >> 16), (Uint8)(rgba >> 8), (Uint8)rgba };
}

static void free_text(gpointer texture)
{
    SDL_DestroyTexture(texture);
}

struct draw *draw_new(SDL_Renderer *renderer)
{
    struct draw *draw = g_new0(struct draw, 1);
    draw->renderer = renderer;
    draw->texts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_text);
    SDL_SetRenderDrawBlendMode(renderer, SDL_BLENDMODE_BLEND);
    if (TTF_Init() < 0)
        log_warn("window", "no text can be drawn: %s", TTF_GetError());
    draw_set_density(draw, 1);
    return draw;
}

static void close_fonts(struct draw *draw)
{
    g_hash_table_remove_all(draw->texts);
    for (unsigned i = 0; i < FONTS; i++) {
        if (draw->fonts[i])
            TTF_CloseFont(draw->fonts[i]);
        draw->fonts[i] = NULL;
    }
}

void draw_free(struct draw *draw)
{
    if (!draw)
        return;
    close_fonts(draw);
    g_hash_table_destroy(draw->texts);
    if (TTF_WasInit())
        TTF_Quit();
    g_free(draw);
}

static bool open_fonts(struct draw *draw, const char *file)
{
    for (unsigned i = 0; i < FONTS; i++) {
        draw->fonts[i] = TTF_OpenFont(file, draw_px(draw, font_points[i]));
        if (!draw->fonts[i])
            return false;
    }
    return true;
}

void draw_set_density(struct draw *draw, double density)
{
    if (density == draw->density)
        return;
    draw->density = density;
    close_fonts(draw);
    if (!TTF_WasInit())
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(font_files); i++) {
        if (g_file_test(font_files[i], G_FILE_TEST_EXISTS) && open_fonts(draw, font_files[i]))
            return;
        close_fonts(draw);
    }
    if (!draw->warned)
        log_warn("window", "no font was found, so the menus have no text: install the package "
                           "fonts-dejavu-core");
    draw->warned = true;
}

int draw_px(const struct draw *draw, int points)
{
    return (int)(points * draw->density + 0.5);
}

void draw_box(struct draw *draw, struct box box, enum draw_colour colour)
{
    SDL_Color c = colour_of(colour);
    SDL_SetRenderDrawColor(draw->renderer, c.r, c.g, c.b, c.a);
    SDL_RenderFillRect(draw->renderer, &(SDL_Rect){ box.x, box.y, box.width, box.height });
}

void draw_frame(struct draw *draw, struct box box, enum draw_colour colour)
{
    int line = MAX(draw_px(draw, 1), 1);
    draw_box(draw, (struct box){ box.x, box.y, box.width, line }, colour);
    draw_box(draw, (struct box){ box.x, box.y + box.height - line, box.width, line }, colour);
    draw_box(draw, (struct box){ box.x, box.y, line, box.height }, colour);
    draw_box(draw, (struct box){ box.x + box.width - line, box.y, line, box.height }, colour);
}

void draw_card(struct draw *draw, struct box box)
{
    int shadow = draw_px(draw, 4);
    draw_box(draw, (struct box){ box.x + shadow, box.y + shadow, box.width, box.height },
             COLOUR_DIM);
    draw_box(draw, box, COLOUR_PANEL);
    draw_frame(draw, box, COLOUR_EDGE);
}

int draw_text_width(struct draw *draw, enum draw_font font, const char *text)
{
    int width = 0;
    if (draw->fonts[font])
        TTF_SizeUTF8(draw->fonts[font], text, &width, NULL);
    return width;
}

int draw_text_height(struct draw *draw, enum draw_font font)
{
    if (draw->fonts[font])
        return TTF_FontHeight(draw->fonts[font]);
    return draw_px(draw, font_points[font] + 3);
}

char *draw_shorten(struct draw *draw, enum draw_font font, const char *text, int width)
{
    char *cut = g_strdup(text);
    for (glong keep = g_utf8_strlen(text, -1) - 1;
         keep > 0 && draw_text_width(draw, font, cut) > width; keep--) {
        g_autofree char *start = g_utf8_substring(text, 0, keep);
        g_free(cut);
        cut = g_strconcat(start, "\u2026", NULL);
    }
    return cut;
}

/* The text as a texture, from the cache. A wrapped text (wrap > 0 pixels) is centred. */
static SDL_Texture *text_texture(struct draw *draw, enum draw_font font, enum draw_colour colour,
                                 const char *text, int wrap)
{
    if (!draw->fonts[font] || !*text)
        return NULL;
    g_autofree char *key = g_strdup_printf("%d %d %d %s", font, colour, wrap, text);
    SDL_Texture *texture = g_hash_table_lookup(draw->texts, key);
    if (texture)
        return texture;
    if (g_hash_table_size(draw->texts) >= CACHE_MAX)
        g_hash_table_remove_all(draw->texts);
    SDL_Surface *surface;
    if (wrap > 0) {
        TTF_SetFontWrappedAlign(draw->fonts[font], TTF_WRAPPED_ALIGN_CENTER);
        surface = TTF_RenderUTF8_Blended_Wrapped(draw->fonts[font], text, colour_of(colour),
                                                 (Uint32)wrap);
    } else {
        surface = TTF_RenderUTF8_Blended(draw->fonts[font], text, colour_of(colour));
    }
    if (!surface)
        return NULL;
    texture = SDL_CreateTextureFromSurface(draw->renderer, surface);
    SDL_FreeSurface(surface);
    if (texture)
        g_hash_table_insert(draw->texts, g_steal_pointer(&key), texture);
    return texture;
}

int draw_text(struct draw *draw, enum draw_font font, enum draw_colour colour, const char *text,
              int x, int y, int height)
{
    SDL_Texture *texture = text_texture(draw, font, colour, text, 0);
    SDL_Rect place = { x, y, 0, 0 };
    if (!texture || SDL_QueryTexture(texture, NULL, NULL, &place.w, &place.h) < 0)
        return 0;
    place.y += (height - place.h) / 2;
    SDL_RenderCopy(draw->renderer, texture, NULL, &place);
    return place.w;
}

int draw_paragraph(struct draw *draw, enum draw_font font, enum draw_colour colour,
                   const char *text, int x, int y, int width)
{
    SDL_Texture *texture = text_texture(draw, font, colour, text, width);
    SDL_Rect place = { x, y, 0, 0 };
    if (!texture || SDL_QueryTexture(texture, NULL, NULL, &place.w, &place.h) < 0)
        return 0;
    place.x += (width - place.w) / 2;
    SDL_RenderCopy(draw->renderer, texture, NULL, &place);
    return place.h;
}
