/* The SDL window; see window.h. */
#include "ui/window.h"

#include "base/error.h"
#include "base/log.h"

enum { TEXT_WIDTH = 720, TEXT_HEIGHT = 400, SHARP_MAX = SCREEN_MAX_WIDTH * SCREEN_MAX_HEIGHT };

/* The largest picture that a window on this screen has room for, in points. */
static struct box most_room(struct window *window)
{
    SDL_Rect usable = { 0, 0, 1024, 768 };
    int display = window->window ? SDL_GetWindowDisplayIndex(window->window) : 0;
    SDL_GetDisplayUsableBounds(MAX(display, 0), &usable);
    enum { DECORATION = 40 }; /* the title bar and a little air */
    return (struct box){ 0, 0, MAX(usable.w, 200), MAX(usable.h - DECORATION - STRIP_POINTS, 200) };
}

/* The size in points for the present mode. One-to-one means pixels. */
static struct box natural_size(struct window *window)
{
    uint32_t width = window->width ? window->width : TEXT_WIDTH;
    uint32_t height = window->height ? window->height : TEXT_HEIGHT;
    struct box most = most_room(window);
    if (window->scaling == SCALING_ONE_TO_ONE) {
        most.width = (int)(most.width * window->density);
        most.height = (int)(most.height * window->density);
    }
    struct box size = geometry_natural(width, height, window->scaling, most);
    if (window->scaling == SCALING_ONE_TO_ONE) {
        size.width = (int)(size.width / window->density + 0.999);
        size.height = (int)(size.height / window->density + 0.999);
    }
    size.height += STRIP_POINTS;
    return size;
}

/* A window that grew beyond the edge comes back, as far as it must. */
static void keep_on_screen(struct window *window)
{
    SDL_Rect usable;
    int x, y;
    if (SDL_GetDisplayUsableBounds(MAX(SDL_GetWindowDisplayIndex(window->window), 0), &usable) < 0)
        return;
    SDL_GetWindowPosition(window->window, &x, &y);
    int right = usable.x + usable.w - (int)window->asked.width;
    int bottom = usable.y + usable.h - (int)window->asked.height;
    if (x > right || y > bottom)
        SDL_SetWindowPosition(window->window, MAX(MIN(x, right), usable.x),
                              MAX(MIN(y, bottom), usable.y));
}

static void apply_natural_size(struct window *window)
{
    if (window->full_screen || window->user_sized)
        return;
    window->asked = natural_size(window);
    SDL_SetWindowSize(window->window, window->asked.width, window->asked.height);
    keep_on_screen(window);
}

static void measure(struct window *window)
{
    int points_w = 1, points_h = 1, w = 1, h = 1;
    SDL_GetWindowSize(window->window, &points_w, &points_h);
    if (SDL_GetRendererOutputSize(window->renderer, &w, &h) < 0) {
        w = points_w;
        h = points_h;
    }
    window->density = CLAMP((double)w / MAX(points_w, 1), 0.5, 8);
    int strip = window->full_screen ? 0 : (int)(STRIP_POINTS * window->density + 0.5);
    window->room = (struct box){ 0, strip, w, MAX(h - strip, 1) };
}

bool window_open(struct window *window, const char *title, GError **error)
{
    window->density = 1;
    window->asked = natural_size(window);
    window->window = SDL_CreateWindow(title, SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED,
                                      window->asked.width, window->asked.height,
                                      SDL_WINDOW_RESIZABLE | SDL_WINDOW_ALLOW_HIGHDPI);
    if (!window->window)
        return hv_fail(error, HV_HOST, "cannot open a window: %s", SDL_GetError());
    window->renderer = SDL_CreateRenderer(window->window, -1, SDL_RENDERER_TARGETTEXTURE);
    if (!window->renderer)
        window->renderer = SDL_CreateRenderer(window->window, -1, SDL_RENDERER_SOFTWARE);
    if (!window->renderer)
        return hv_fail(error, HV_HOST, "cannot draw in the window: %s", SDL_GetError());
    SDL_SetWindowMinimumSize(window->window, 320, 200 + STRIP_POINTS);
    measure(window);
    return true;
}

static void free_texture(SDL_Texture **texture)
{
    if (*texture)
        SDL_DestroyTexture(*texture);
    *texture = NULL;
}

void window_close(struct window *window)
{
    free_texture(&window->picture);
    free_texture(&window->sharp);
    if (window->renderer)
        SDL_DestroyRenderer(window->renderer);
    if (window->window)
        SDL_DestroyWindow(window->window);
}

bool window_mode(struct window *window, uint32_t width, uint32_t height)
{
    free_texture(&window->picture);
    free_texture(&window->sharp);
    bool resized = width != window->width || height != window->height;
    window->width = width;
    window->height = height;
    window->picture = SDL_CreateTexture(window->renderer, SDL_PIXELFORMAT_RGB888,
                                        SDL_TEXTUREACCESS_STREAMING, (int)width, (int)height);
    if (!window->picture) {
        log_warn("window", "cannot show %u x %u pixels: %s", width, height, SDL_GetError());
        return false;
    }
    if (resized)
        apply_natural_size(window);
    return true;
}

void window_upload(struct window *window, const uint32_t *pixels, struct rectangle damage)
{
    if (!window->picture || !damage.width || !damage.height)
        return;
    SDL_Rect rect = { (int)damage.x, (int)damage.y, (int)damage.width, (int)damage.height };
    SDL_UpdateTexture(window->picture, &rect, pixels + (size_t)damage.y * window->width + damage.x,
                      (int)(window->width * sizeof *pixels));
}

void window_resized(struct window *window)
{
    int width, height;
    SDL_GetWindowSize(window->window, &width, &height);
    if (!window->full_screen && (width != window->asked.width || height != window->asked.height))
        window->user_sized = true;
    measure(window);
}

void window_set_scaling(struct window *window, enum scaling scaling)
{
    window->scaling = scaling;
    window->user_sized = SDL_GetWindowFlags(window->window) & SDL_WINDOW_MAXIMIZED;
    apply_natural_size(window);
}

void window_set_full_screen(struct window *window, bool full)
{
    /* The desktop's own mode: the screen does not flicker, and the other windows stay in place. */
    if (SDL_SetWindowFullscreen(window->window, full ? SDL_WINDOW_FULLSCREEN_DESKTOP : 0) < 0) {
        log_warn("window", "no full screen: %s", SDL_GetError());
        return;
    }
    window->full_screen = full;
    if (!full)
        apply_natural_size(window);
    measure(window);
}

/* A copy of the picture enlarged by whole numbers, which looks even, to be made smaller after,
 * which looks smooth. NULL when that does not apply. */
static SDL_Texture *sharpen(struct window *window, struct box place)
{
    int width = (int)window->width, height = (int)window->height;
    int x = (place.width + width - 1) / width, y = (place.height + height - 1) / height;
    if (place.width < width || place.height < height || (int64_t)width * x * height * y > SHARP_MAX)
        return NULL;
    int have_w = 0, have_h = 0;
    if (window->sharp)
        SDL_QueryTexture(window->sharp, NULL, NULL, &have_w, &have_h);
    if (have_w != width * x || have_h != height * y) {
        free_texture(&window->sharp);
        window->sharp = SDL_CreateTexture(window->renderer, SDL_PIXELFORMAT_RGB888,
                                          SDL_TEXTUREACCESS_TARGET, width * x, height * y);
        if (!window->sharp)
            return NULL;
        SDL_SetTextureScaleMode(window->sharp, SDL_ScaleModeLinear);
    }
    if (SDL_SetRenderTarget(window->renderer, window->sharp) < 0)
        return NULL;
    SDL_SetTextureScaleMode(window->picture, SDL_ScaleModeNearest);
    SDL_RenderCopy(window->renderer, window->picture, NULL, NULL);
    SDL_SetRenderTarget(window->renderer, NULL);
    return window->sharp;
}

struct box window_place(const struct window *window)
{
    return geometry_place(window->width, window->height, window->scaling, window->room);
}

void window_draw_picture(struct window *window)
{
    struct box place = window_place(window);
    bool whole = window->picture && place.width % (int)window->width == 0 &&
                 place.height % (int)window->height == 0;
    SDL_Texture *texture = window->picture;
    if (texture && !whole) {
        texture = sharpen(window, place);
        if (!texture) {
            texture = window->picture;
            SDL_SetTextureScaleMode(texture, SDL_ScaleModeLinear);
        }
    } else if (texture) {
        SDL_SetTextureScaleMode(texture, SDL_ScaleModeNearest);
    }
    SDL_SetRenderDrawColor(window->renderer, 0, 0, 0, 255);
    SDL_RenderClear(window->renderer);
    if (texture)
        SDL_RenderCopy(window->renderer, texture, NULL,
                       &(SDL_Rect){ place.x, place.y, place.width, place.height });
}
