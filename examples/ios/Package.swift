// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "SensoriumExample",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "SensoriumExample", targets: ["SensoriumExample"])],
    dependencies: [
        // Or a build of one's own: docs/export.md says how with required_operators.config.
        .package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", from: "1.24.2")
    ],
    targets: [
        .target(
            name: "SensoriumExample",
            dependencies: [.product(name: "onnxruntime", package: "onnxruntime-swift-package-manager")]
        )
    ]
)
