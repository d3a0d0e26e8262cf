// OpenCV's colour maps in 17 steps each, sRGB: to see one before it is chosen.

const STEPS = {
  autumn: "ff0000ff1000ff2000ff3000ff4000ff5000ff6000ff7000ff8000ff8f00ff9f00ffaf00ffbf00ffcf00ffdf00ffef00ffff00",
  bone: "0000000e0e131c1c272a2a3a38384d464660545474626782707a907d8d9d8ba0ab99b4b9a8c7c7bdd5d5d3e3e3e9f1f1ffffff",
  cividis: "00224e002e6a1a386f32436d434e6c535a6d61656f6f70737c7c788b87789a9376aaa073bbad6dccba64ddc858efd748fee838",
  cool: "00ffff10efff20dfff30cfff40bfff50afff609fff708fff8080ff8f70ff9f60ffaf50ffbf40ffcf30ffdf20ffef10ffff00ff",
  deepgreen: "000000001000002000003000004000005000006010007028008040008f57009f6f10af8740bfa070cfb79fdfcfcfefe7ffffff",
  hot: "000000280000500000770000a00000c70000ef0000ff1800ff4000ff6700ff8f00ffb700ffdf00ffff10ffff60ffffafffffff",
  hsv: "ff0000ff6000ffbf00dfff0080ff0020ff0000ff4000ff9f00f8f8009fff0040ff2000ff8000ffdf00ffff00bfff0060ff0000",
  inferno: "0000040b0724210c4a3d096556106e70196e89226aa32c61bb3654d14545e35932f1721ef98c0afcaa0ff9c932f2e865fcffa4",
  jet: "0000800000c00000ff003fff007fff00bfff01fefe40ffc080ff80c0ff40fefe01ffbf00ff7f00ff3f00ff0000c00000800000",
  magma: "0000040a08221d114736106b50127c691c818226819c2e7fb6367acf4070e65164f46a5cfb8861fea571fec287fde0a1fcfdbf",
  ocean: "00000000001000002000003000004000005000106000287000408000578f006f9f1087af40a0bf70b7cf9fcfdfcfe7efffffff",
  parula: "352a871c47b40363e10c74da1485d40d96cd07a7c61fb0b238b99e65bc8992bf73b6bd65d8ba56eac442fcce2efbe41ef9fb0e",
  pink: "000000503434714a4a8a5a5a9f6868b27575c38180ca968ad0aa94d6bb9cddcba4e3daace9e8b5eeeec9f4f4ddfafaeeffffff",
  plasma: "0d08873105974c02a16600a77e03a89511a1a92395bc3587cc4678d9596ae56b5df07f4ff89441fdab33fdc328f9dd25f0f921",
  rainbow: "ff0000ff2800ff5000ff7700ffa000ffc700ffef00cfff0080ff0030ff0000df20008f700040bf0b00ff4000ff7500ffaa00ff",
  spring: "ff00ffff10efff20dfff30cfff40bfff50afff609fff708fff8080ff8f70ff9f60ffaf50ffbf40ffcf30ffdf20ffef10ffff00",
  summer: "00806610886620906630986640a06650a86660b06670b86680c0668fc7669fcf66afd766bfdf66cfe766dfef66eff766ffff66",
  turbo: "30123b4040a2466be34293ff28bbec18dcc331f2996bfe64a2fc3ccced34edd03afdad35fb8022ec520fd23105ac17017a0403",
  twilight: "e2d9e2c2ced494b4c67296c16276ba5e51ac592b8f45135c3014374b1341741d4f983550b25652c27c62cca288d8c6bde2d9e2",
  twilight_shifted: "30143746145d5a2b905e51ad6276bb7297c195b5c7c4cfd4e2d9e2d9c6becca389c37c63b25652993650751e4f4b13422f1436",
  viridis: "44015448186a472d7b4240863b528b33638d2c728e26828e21908c1f9f8827ad813ebc745cc86382d34daadc32d5e21afde725",
  winter: "0000ff0010f70020ef0030e70040df0050d70060cf0070c70080c0008fb8009fb000afa800bfa000cf9800df9000ef8800ff80",
};

/** The colours of a map from the least to the most heat, "#rrggbb" each; none of a map that is not known here. */
export function colorsOf(name) {
  return (STEPS[name]?.match(/.{6}/g) ?? []).map((color) => "#" + color);
}

/** Fills a canvas with a map's colours, the least heat on the left; false where the map is not known here. */
export function drawColors(canvas, name) {
  const colors = colorsOf(name);
  const context = canvas.getContext("2d");
  const gradient = context.createLinearGradient(0, 0, canvas.width, 0);
  colors.forEach((color, step) => gradient.addColorStop(step / (colors.length - 1), color));
  context.fillStyle = gradient;
  context.fillRect(0, 0, canvas.width, canvas.height);
  return colors.length > 0;
}
