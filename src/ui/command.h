/* What a user can tell the viewer: one table for the menus, the shortcuts with the host key and the
 * help overlay. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum menu { MENU_MACHINE, MENU_KEYS, MENU_VIEW, MENUS, MENU_NONE };

struct viewer;
struct command {
    enum menu menu;
    const char *label;
    uint8_t letter;          /* with the host key; 0: none */
    const char *key;         /* the letter's name */
    const char *is_on_label; /* instead of label while is_on; NULL: a mark beside it */
    bool (*is_on)(const struct viewer *viewer);
    void (*run)(struct viewer *viewer, const struct command *command);
    uint32_t value;  /* for run */
    uint8_t keys[4]; /* for run: pressed in this order */
};

extern const struct command commands[];
extern const unsigned command_count;
extern const char *const menu_names[MENUS];

/* The command of a key pressed with the host key, or NULL. */
const struct command *command_of_letter(uint8_t letter);
const char *command_label(const struct command *command, const struct viewer *viewer);
