/* A machine that is none; see fake-machine.h. */
#include "boot/fake-machine.h"

#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fds.h"

enum { FRAME_BYTES = SCREEN_MAX_WIDTH * SCREEN_MAX_HEIGHT * 4, PATIENCE_MS = 5000 };

void fake_start(struct fake_machine *fake)
{
    int ends[2];
    *fake = (struct fake_machine){ 0 };
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), ==, 0);
    fake->socket = ends[0];
    fake->window = ends[1];
    fcntl(fake->socket, F_SETFD, FD_CLOEXEC);
    fake->frame = memfd_create("frame", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    g_assert_cmpint(ftruncate(fake->frame, FRAME_BYTES), ==, 0);
    g_assert_cmpint(fcntl(fake->frame, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), ==, 0);
    fake->pixels = mmap(NULL, FRAME_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fake->frame, 0);
    g_assert_true(fake->pixels != MAP_FAILED);
}

void fake_finish(struct fake_machine *fake)
{
    if (fake->socket >= 0)
        close(fake->socket);
    close(fake->frame);
    munmap(fake->pixels, FRAME_BYTES);
}

void fake_send(struct fake_machine *fake, const struct display_message *message)
{
    g_assert_true(fds_send(fake->socket, message, sizeof *message, NULL, 0, NULL));
}

void fake_hello(struct fake_machine *fake, const char *name)
{
    struct display_message hello = { .kind = DISPLAY_HELLO, .a = FRAME_BYTES };
    g_strlcpy(hello.text, name, sizeof hello.text);
    g_assert_true(fds_send(fake->socket, &hello, sizeof hello, &fake->frame, 1, NULL));
}

void fake_mode(struct fake_machine *fake, uint32_t width, uint32_t height)
{
    fake->width = width;
    fake->height = height;
    fake_send(fake, &(struct display_message){ .kind = DISPLAY_MODE, .a = width, .b = height });
}

void fake_fill(struct fake_machine *fake, struct rectangle part, uint32_t colour)
{
    for (uint32_t y = part.y; y < part.y + part.height; y++) {
        for (uint32_t x = part.x; x < part.x + part.width; x++)
            fake->pixels[(size_t)y * fake->width + x] = colour;
    }
}

void fake_damage(struct fake_machine *fake, struct rectangle part)
{
    fake_send(fake, &(struct display_message){ DISPLAY_DAMAGE, part.x, part.y, part.width,
                                               part.height, "" });
}

void fake_state(struct fake_machine *fake, enum display_state state, uint32_t lamps, uint32_t disk,
                const char *reason)
{
    struct display_message message = { .kind = DISPLAY_STATE, .a = state, .b = lamps, .c = disk };
    g_strlcpy(message.text, reason, sizeof message.text);
    fake_send(fake, &message);
}

static bool receive(struct fake_machine *fake, int ms)
{
    unsigned count;
    struct pollfd wait = { fake->socket, POLLIN, 0 };
    if (poll(&wait, 1, ms) != 1)
        return false;
    return fds_receive(fake->socket, &fake->last, sizeof fake->last, NULL, 0, &count, NULL) ==
           sizeof fake->last;
}

bool fake_expect(struct fake_machine *fake, enum display_kind kind, uint32_t a)
{
    while (receive(fake, PATIENCE_MS)) {
        if (fake->last.kind == kind && fake->last.a == a)
            return true;
        g_test_message("skipped kind %x: %u %u %u %u", fake->last.kind, fake->last.a, fake->last.b,
                       fake->last.c, fake->last.d);
    }
    return false;
}

bool fake_quiet(struct fake_machine *fake, int ms)
{
    return !receive(fake, ms);
}
