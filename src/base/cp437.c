/* Code page 437 as Unicode; see cp437.h. */
#include "base/cp437.h"

#include <uchar.h>

static const char32_t characters[] = U" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
                                     U" !\"#$%&'()*+,-./0123456789:;<=>?"
                                     U"@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
                                     U"`abcdefghijklmnopqrstuvwxyz{|}~⌂"
                                     U"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ"
                                     U"áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
                                     U"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
                                     U"αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";

gunichar cp437_character(uint8_t code)
{
    return characters[code];
}
